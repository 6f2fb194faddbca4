"""Conversations of several turns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Sequence

from .answer import Answer
from .config import ConfigLike
from .errors import argument_error
from .stream import Stream

if TYPE_CHECKING:
    from ._params import Params, Unpack
    from .image import Image
    from .model import Model

ANSWER = "{answer}"

# From one request to the next, as llava/conversation.py of github.com/haotian-liu/LLaVA writes it: SeparatorStyle.TWO
# with " " and "</s>", and SeparatorStyle.LLAMA_2 with "" and "</s>".
_VICUNA = f" ASSISTANT: {ANSWER}</s>USER: "
_MISTRAL = f" [/INST] {ANSWER} </s>[INST] "
_BETWEEN = {"vicuna_v1": _VICUNA, "llava_v1": _VICUNA, "llava_hf": _VICUNA, "mistral_instruct": _MISTRAL}


def between_of(conversation: str) -> str:
    """What stands between two requests of a conversation.

    Raises
    ------
    ArgumentError
        The template has one turn only, or is a text that does not tell how a second one begins.
    """
    if conversation in _BETWEEN:
        return _BETWEEN[conversation]
    if "USER: " in conversation and conversation.endswith("{prompt} ASSISTANT:"):
        return _VICUNA
    if conversation.endswith("{prompt} [/INST]"):
        return _MISTRAL
    raise argument_error(
        f"conversation {conversation!r} does not tell how a second turn begins: give between=, the text from one "
        f"request to the next with {ANSWER!r} in it, such as {_VICUNA!r}"
    )


@dataclass(frozen=True)
class Turn:
    question: str
    answer: Answer


class Chat:
    """A conversation about images, made by :meth:`Model.chat`.

    Every turn is a request of its own: the images are encoded and the whole conversation so far is read again, so that
    a turn takes the time of all before it. What the model reads is what LLaVA renders: the first question with the
    images, then answer, end token and question in turn.

    Attributes
    ----------
    turns : list of Turn
        Questions and answers so far; remove entries to go back.
    """

    def __init__(
        self,
        model: Model,
        images: Sequence[Image],
        config: ConfigLike | None,
        between: str | None,
        params: Params,
    ) -> None:
        self._model = model
        self._images = images
        self._config = config
        self._params = params
        if between is None:
            between = between_of(params.get("conversation") or model.info.conversation)
        self._between = between
        if self._between.count(ANSWER) != 1:
            raise argument_error(f"between: expected a text with {ANSWER!r} once, found {self._between!r}")
        self.turns: list[Turn] = []

    def prompt(self, question: str) -> str:
        """The request of the next turn: all before it and the question."""
        before, after = self._between.split(ANSWER)
        return "".join(t.question + before + t.answer.text + after for t in self.turns) + question

    def ask(self, question: str, **params: Unpack[Params]) -> Answer:
        """The answer to the next question; if it fails, the conversation is as before."""
        answer = self._model.ask(self._images, self.prompt(question), self._config, **self._merged(params))
        self.turns.append(Turn(question, answer))
        return answer

    def stream(self, question: str, **params: Unpack[Params]) -> Stream:
        """The same piece by piece. The turn counts when the stream has come to its end."""
        return self._model._stream(
            self._images,
            self.prompt(question),
            self._config,
            self._merged(params),
            lambda answer: self.turns.append(Turn(question, answer)),
        )

    def _merged(self, params: Any) -> Any:
        if "conversation" in params:
            raise TypeError("conversation: a chat keeps the one it began with")
        return {**self._params, **params}
