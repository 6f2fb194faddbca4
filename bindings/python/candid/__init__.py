"""candid: a vision-language engine that says what it sees.

>>> import candid
>>> model = candid.Model.demo()
>>> answer = model.caption("photo.png", config={"vhr": True})
>>> print(answer.text, answer.interventions)
"""

from ._library import version
from ._params import Params
from .answer import Answer, Answers, Candidate, Sharing, Stats
from .chat import Chat, Turn
from .config import Config, ConfigLike, methods, schema
from .errors import (
    ArgumentError,
    CancelledError,
    CandidError,
    ContextLengthError,
    FileError,
    FormatError,
    InternalError,
    OutOfMemoryError,
    UnsupportedError,
)
from .image import Image, ImageLike
from .look import Look
from .model import CAPTION_PROMPT, Model, ModelInfo
from .stream import Stream

__version__ = "0.1.0"

__all__ = [
    "CAPTION_PROMPT",
    "Answer",
    "Answers",
    "ArgumentError",
    "CancelledError",
    "CandidError",
    "Candidate",
    "Chat",
    "Config",
    "ConfigLike",
    "ContextLengthError",
    "FileError",
    "FormatError",
    "Image",
    "ImageLike",
    "InternalError",
    "Look",
    "Model",
    "ModelInfo",
    "OutOfMemoryError",
    "Params",
    "Sharing",
    "Stats",
    "Stream",
    "Turn",
    "UnsupportedError",
    "methods",
    "schema",
    "version",
]
