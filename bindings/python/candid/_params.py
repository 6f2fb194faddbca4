"""Parameters of a generation."""

from __future__ import annotations

import ctypes
import sys
from typing import TYPE_CHECKING, Sequence, TypedDict

from . import _abi
from ._library import choice, to_bytes, to_int
from .config import Config, ConfigLike

if TYPE_CHECKING:
    if sys.version_info >= (3, 11):
        from typing import Unpack as Unpack
    else:
        from typing_extensions import Unpack as Unpack


class Params(TypedDict, total=False):
    """Keyword arguments of every call that generates; what is left out has the library's default.

    Attributes
    ----------
    max_new_tokens : int
        0 (default): 512, or what is left of the context window, if that is less.
    temperature : float
        0 (default): greedy.
    top_k : int
        0 (default): off.
    top_p : float
        1 (default): off.
    repetition_penalty : float
        1 (default): off; as in transformers, over prompt and generated tokens.
    seed : int
        Of the sampler, 0 to 2**64 - 1.
    preprocess : str
        "auto" (default: what the model's files say), "pad", "crop" or "anyres".
    conversation : str
        A template's name (vicuna_v1, llava_v1, llava_hf, mistral_instruct, plain) or text with ``{prompt}``; default:
        the model's own.
    stop : sequence of str
        Strings that end the answer and are not part of it.
    """

    max_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    repetition_penalty: float
    seed: int
    preprocess: str
    conversation: str | None
    stop: Sequence[str]


class Generation:
    """The C struct with everything that it points to."""

    def __init__(
        self,
        config: ConfigLike | None = None,
        *,
        max_new_tokens: int = 0,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        repetition_penalty: float = 1.0,
        seed: int = 0,
        preprocess: str = "auto",
        conversation: str | None = None,
        stop: Sequence[str] = (),
    ) -> None:
        p = self.struct = _abi.defaults(_abi.candid_generate_params)
        p.max_new_tokens = to_int(max_new_tokens, "max_new_tokens", 0, 2**31 - 1)
        p.temperature = temperature
        p.top_k = to_int(top_k, "top_k", -(2**31), 2**31 - 1)
        p.top_p = top_p
        p.repetition_penalty = repetition_penalty
        p.seed = to_int(seed, "seed", 0, 2**64 - 1)
        p.preprocess = choice(_abi.PREPROCESS, preprocess, "preprocess")
        if conversation is not None:
            p.conversation = to_bytes(conversation, "conversation")
        if isinstance(stop, str):
            raise TypeError("stop: expected a sequence of strings, found str")
        self._stop = (ctypes.c_char_p * len(stop))(*[to_bytes(s, "stop") for s in stop])
        p.stop = self._stop if stop else None
        p.n_stop = len(stop)
        self._config = None if config is None else Config(config)
        p.config = None if self._config is None else self._config._handle
