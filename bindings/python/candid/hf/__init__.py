"""candid's methods inside transformers: README.md in this folder."""
from ._attach import Attachment, attach, capabilities, detach, generate_opera
from ._host import NEWEST, OLDEST, TESTED
from ._prompts import inputs

__all__ = ["Attachment", "NEWEST", "OLDEST", "TESTED", "attach", "capabilities", "detach", "generate_opera", "inputs"]
