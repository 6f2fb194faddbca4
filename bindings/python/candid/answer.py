"""Answers and what is known of how they came about."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Sequence

import numpy as np
import numpy.typing as npt

from . import _abi


@dataclass(frozen=True)
class Stats:
    """Times and counts of one request; see ``candid_stats`` in ``candid.h``."""

    load_ms: float  #: image preprocessing
    encode_ms: float  #: image encoder and projector, all images
    prefill_ms: float  #: decoder over the prompt
    decode_ms: float  #: all steps after the first token
    n_prompt: int  #: prompt length in tokens, visual tokens included
    n_generated: int  #: tokens of all answers, end tokens included
    decode_bytes: float  #: bytes of weights and KV cache read in decode_ms, by counting
    fingerprint: int  #: CRC-32 of all logits the tokens were chosen from


@dataclass(frozen=True)
class Candidate:
    """One of several answers (``decode.answers`` of the configuration)."""

    text: str
    tokens: npt.NDArray[np.int32] = field(repr=False, compare=False)  #: (n_tokens,) with the end token
    finish: str  #: "eos", "stop", "length" or "cancelled"
    score: float  #: beam search and OPERA: sum of log-probabilities with the length penalty; else 0

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Answer(Candidate):
    """An answer, the best of ``answers``. ``str(answer)`` and ``print(answer)`` give its text."""

    stats: Stats = field(repr=False, compare=False)
    interventions: dict[str, Any]  #: by method what it did, or ``"why"`` it did nothing (docs/methods.md)
    answers: tuple[Candidate, ...] = field(repr=False, compare=False)  #: all of them, best first


@dataclass(frozen=True)
class Sharing:
    """What :meth:`Model.ask_many` had to do; see ``candid_sharing`` in ``candid.h``."""

    n_prompt: int  #: tokens of all prompts and contrasted branches, visual tokens included
    n_prefilled: int  #: tokens that were read
    n_images: int  #: images of all requests
    n_encoded: int  #: images that were encoded for them
    load_ms: float
    encode_ms: float
    prefill_ms: float
    decode_ms: float
    why_not: str  #: why a common beginning was read for each request anew, or ""


class Answers(tuple[Answer, ...]):
    """Answers in the order of their questions, and ``sharing``: what they had in common."""

    sharing: Sharing

    def __new__(cls, answers: Sequence[Answer], sharing: Sharing) -> Answers:
        made = super().__new__(cls, answers)
        made.sharing = sharing
        return made


def _tokens(ids: Any, n: int) -> npt.NDArray[np.int32]:
    return np.ctypeslib.as_array(ids, (n,)).copy() if n else np.zeros(0, np.int32)


def _candidate(a: Any) -> dict[str, Any]:
    return {
        "text": a.text.decode("utf-8", "replace"),
        "tokens": _tokens(a.tokens, a.n_tokens),
        "finish": _abi.FINISH[a.finish],
        "score": a.score,
    }


def answer_from(result: _abi.candid_result) -> Answer:
    """A copy of what the library's result says."""
    stats = {name: getattr(result.stats, name) for name, *_ in _abi.candid_stats._fields_}
    answers = [_candidate(result.answers[i]) for i in range(result.n_answers)]
    return Answer(
        **answers[0],
        stats=Stats(**stats),
        interventions=json.loads(result.interventions),
        answers=tuple(Candidate(**a) for a in answers),
    )


def sharing_from(sharing: _abi.candid_sharing) -> Sharing:
    values = {name: getattr(sharing, name) for name, *_ in _abi.candid_sharing._fields_ if name != "struct_size"}
    values["why_not"] = values["why_not"].decode("utf-8", "replace")
    return Sharing(**values)
