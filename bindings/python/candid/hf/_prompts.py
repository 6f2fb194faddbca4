"""The user's text in a prompt: where it stands, and the prompt with another text in its place."""
from __future__ import annotations

import re
from typing import Any

from ._host import refuse

IMAGE, _MARK = "<image>", "CANDIDREQUESTMARK"


class Conversation:
    """What stands around a request, from the processor's chat template or from a text with "{prompt}"."""

    def __init__(self, processor: Any, template: str | None, image_tokens: int):
        self.tokenizer, self._processor = getattr(processor, "tokenizer", processor), processor
        self._template, self._image_tokens = template, image_tokens
        self.image_token = getattr(processor, "image_token", IMAGE)
        if template is not None and template.count("{prompt}") != 1:
            raise refuse(f'conversation: expected a text with "{{prompt}}" once, found {template!r}')
        if template is None and not getattr(processor, "chat_template", None):
            raise refuse('the processor has no chat template: give conversation="USER: <image>\\n{prompt} ASSISTANT:" or what '
                         "the model was trained with")

    def around(self, n_images: int) -> tuple[str, str]:
        """Text before and after the request."""
        if self._template is not None:
            head, tail = self._template.split("{prompt}")
            places = re.findall(IMAGE + "\n?", head + tail)
            if not places:
                head += (IMAGE + "\n") * n_images
            else:
                head, tail = (re.sub(IMAGE + "\n?", lambda m: m[0] * n_images, part) for part in (head, tail))
            return head, tail
        content = [dict(type="image")] * n_images + [dict(type="text", text=_MARK)]
        text = self._processor.apply_chat_template([dict(role="user", content=content)], add_generation_prompt=True,
                                                   tokenize=False)
        head, _, tail = text.partition(_MARK)
        return head.replace(self.image_token, IMAGE), tail.replace(self.image_token, IMAGE)

    def text(self, request: str, n_images: int, prefix: str | None = None, system: str | None = None) -> str:
        """The prompt's text; prefix: before the request, system: in place of what stands before the first role."""
        head, tail = self.around(n_images)
        if system is not None:
            head = system + " " + (head[head.index("USER:"):] if "USER:" in head else head)
        return head + (f"{prefix} {request}" if prefix is not None else request) + tail

    def ids(self, text: str) -> list[int]:
        """With one placeholder per visual token, as the processor makes them."""
        return self.tokenizer(text.replace(IMAGE, self.image_token * self._image_tokens)).input_ids

    def find(self, ids: list[int], n_images: int) -> str | None:
        """The request in a prompt's ids, or None where the prompt is no such conversation."""
        text = self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        places = rf"(?:\s*{re.escape(self.image_token)}){{{self._image_tokens}}}"
        head, tail = (self._pattern(part) for part in self.around(n_images))
        found = re.search(f"{head}(.*){tail}\\s*$", re.sub(places, IMAGE, text), re.DOTALL)
        for request in dict.fromkeys((found[1], found[1].strip())) if found else ():
            if self.ids(self.text(request, n_images)) == ids:
                return request
        return None

    @staticmethod
    def _pattern(text: str) -> str:
        """Decoding puts blanks around placeholders, so blanks there do not count: the ids are compared in the end."""
        return rf"\s*{IMAGE}\s*".join(re.escape(part.strip()) for part in text.split(IMAGE))

    def must_find(self, ids: list[int], n_images: int, why: str) -> str:
        request = self.find(ids, n_images)
        if request is None:
            head, tail = self.around(n_images)
            raise refuse(f"{why}, but the prompt is not {head!r} + request + {tail!r}: build it with candid.hf.inputs() or the "
                         "attachment's ask(), or tell attach() the conversation")
        return request


def inputs(processor: Any, images: Any, question: str, conversation: str | None = None, **options: Any) -> Any:
    """What model.generate() takes for a question about images (one, a list, or None), one prompt."""
    images = [] if images is None else list(images) if isinstance(images, (list, tuple)) else [images]
    text = Conversation(processor, conversation, 1).text(question, len(images))
    text = text.replace(IMAGE, getattr(processor, "image_token", IMAGE))
    return processor(images=images or None, text=[text], return_tensors="pt", **options)
