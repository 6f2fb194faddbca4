"""The attention and mask functions that candid registers with transformers.

A model generates under the name "candid_" + the implementation it had, e.g. "candid_sdpa".  Layers whose scores or
probabilities nobody wants go the implementation's own way; of the others rows are computed in the open, as transformers'
eager attention computes them, and shown.  Masks are the implementation's own.
"""
from __future__ import annotations

import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any, Callable

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ._plugin import Site

if TYPE_CHECKING:
    from ._pass import ForwardPass

PREFIX = "candid_"
VISIBLE = ("sdpa", "eager")    # implementations whose masks say all that a row sees


class _Active(threading.local):
    """The forward pass that this thread shows to the library, if any."""

    run: ForwardPass | None = None


active = _Active()


def _own_attention(name: str, module: Any) -> Callable[..., Any]:
    """The implementation's function; "eager" is the modelling file's."""
    if name != "eager":
        return ALL_ATTENTION_FUNCTIONS[name]
    return sys.modules[type(module).__module__].eager_attention_forward


def _repeat(states: torch.Tensor, n: int) -> torch.Tensor:
    return states if n == 1 else states.repeat_interleave(n, 1)


def _hide(scores: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Scores with what rows do not see at the type's minimum: not -inf, padding rows see nothing at all."""
    n_rows, n_keys = scores.shape[-2:]
    low = torch.finfo(scores.dtype).min
    if mask is None:
        if n_rows == 1:
            return scores
        mask = torch.ones(n_rows, n_keys, dtype=torch.bool, device=scores.device).tril(n_keys - n_rows)
    mask = mask[..., :n_keys]
    return scores.masked_fill(~mask, low) if mask.dtype == torch.bool else scores + mask


def _open_attention(run: ForwardPass, module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
                    mask: torch.Tensor | None, scaling: float) -> tuple[torch.Tensor, torch.Tensor]:
    layer, groups = module.layer_idx, query.shape[1] // key.shape[1]
    scores = torch.matmul(query, _repeat(key, groups).transpose(2, 3)) * scaling
    run.show(Site.ATTENTION_SCORES, layer, scores)
    probs = torch.softmax(_hide(scores, mask), -1, dtype=torch.float32)
    run.show(Site.ATTENTION_PROBS, layer, probs)
    probs = probs.to(query.dtype)
    return torch.matmul(probs, _repeat(value, groups)).transpose(1, 2).contiguous(), probs


def _attention_as(name: str) -> Callable[..., Any]:
    def attention(module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
                  attention_mask: torch.Tensor | None, scaling: float | None = None, **more: Any) -> Any:
        run = active.run
        if run is None or not run.opens(module.layer_idx):
            return _own_attention(name, module)(module, query, key, value, attention_mask, scaling=scaling, **more)
        scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
        return _open_attention(run, module, query, key, value, attention_mask, scaling)

    return attention


def registered(name: str) -> str:
    """Registers attention and mask function for an implementation; the name to select them by."""
    if name not in VISIBLE:
        warnings.warn(f"attention implementation {name!r} does not show its rows: while methods that look at attention are "
                      "at work the model runs with 'sdpa'", stacklevel=2)
        name = "sdpa"
    own = PREFIX + name
    if own not in ALL_ATTENTION_FUNCTIONS:
        AttentionInterface.register(own, _attention_as(name))
        AttentionMaskInterface.register(own, ALL_MASK_ATTENTION_FUNCTIONS[name])
    return own
