"""What candid has to know of a transformers model: where its parts are, its sizes, and whether it can be attached to."""
from __future__ import annotations

import logging
import os
import re
import warnings
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from transformers import LlavaForConditionalGeneration

from . import _plugin as abi
from ..errors import UnsupportedError

TESTED = ("4.56", "4.57")            # minor releases that all tests ran with
OLDEST, NEWEST = (4, 56), (5, 0)    # refused before the first and from the second on

_log = logging.getLogger("candid")


def refuse(message: str) -> UnsupportedError:
    return UnsupportedError(abi.UNSUPPORTED, message)


def check_version() -> None:
    found = tuple(int(n) for n in re.findall(r"\d+", transformers.__version__)[:2])
    if not OLDEST <= found < NEWEST:
        raise refuse(f"transformers {transformers.__version__}: candid.hf works with {OLDEST[0]}.{OLDEST[1]} and later, before "
                     f"{NEWEST[0]}.{NEWEST[1]} (tested: {', '.join(TESTED)})")
    if ".".join(map(str, found)) not in TESTED:
        warnings.warn(f"transformers {transformers.__version__}: candid.hf was tested with {', '.join(TESTED)} only",
                      stacklevel=3)


def _logger() -> Any:
    """Writes to the logger "candid", each message once."""
    said: set[bytes] = set()

    @abi.LogFunction
    def write(_: Any, level: int, message: bytes) -> None:
        if message not in said:
            said.add(message)
            _log.log({0: logging.DEBUG, 1: logging.INFO}.get(level, logging.WARNING), "%s", message.decode("utf-8", "replace"))

    return write


@dataclass
class Vision:
    """The image encoder's parts."""

    layers: Any        # its blocks
    n_blocks: int      # those up to the one whose output is used
    n_heads: int
    grid: int          # patches along a side
    has_class_token: bool


class HostModel:
    """A LLaVA model of transformers."""

    def __init__(self, model: Any, name: str | None, trained_with: str | None):
        if isinstance(model, torch._dynamo.eval_frame.OptimizedModule):
            raise refuse("the model is wrapped by torch.compile: attach to model._orig_mod; methods need the model's layers "
                         "to run one by one")
        if not isinstance(model, LlavaForConditionalGeneration):
            raise refuse(f"expected a LlavaForConditionalGeneration of transformers, found {type(model).__name__}")
        self.model, self.inner = model, model.model
        self.lm, self.lm_head = model.model.language_model, model.lm_head
        if not all(hasattr(self.lm, part) for part in ("layers", "norm", "embed_tokens")):
            raise refuse(f"expected a language model with layers, norm and embed_tokens, found {type(self.lm).__name__}")
        for part in ("self_attn", "mlp"):
            if not hasattr(self.lm.layers[0], part):
                raise refuse(f"expected decoder layers with {part}, found {type(self.lm.layers[0]).__name__}")
        if not hasattr(self.lm.layers[0].self_attn, "o_proj"):
            raise refuse("expected attention with an output projection named o_proj")
        self.text, self.image_token = self.lm.config, model.config.image_token_index
        self.n_layer = self.text.num_hidden_layers
        self.name = name or os.path.basename(str(getattr(model.config, "_name_or_path", "")).rstrip("/"))
        self.trained_with = trained_with
        self.vision = self._vision()

    def _vision(self) -> Vision:
        config, layer = self.model.config.vision_config, self.model.config.vision_feature_layer
        clip = getattr(self.inner.vision_tower, "vision_model", None)
        last = max(layer) if isinstance(layer, (list, tuple)) else layer
        layers = clip.encoder.layers if hasattr(clip, "encoder") else []
        n = len(layers) + 1 + last if last < 0 else last
        return Vision(layers=layers, n_blocks=n, n_heads=config.num_attention_heads,
                      grid=config.image_size // config.patch_size, has_class_token=hasattr(clip, "pre_layrnorm"))

    def image_tokens(self) -> int:
        """Visual tokens of an image."""
        return self.vision.grid ** 2 + (self.model.config.vision_feature_select_strategy == "full")

    def image_grid(self) -> tuple[int, int]:
        """(rows, columns) of an image's tokens, (0, 0) where they form no grid."""
        side = self.vision.grid if self.image_tokens() == self.vision.grid ** 2 else 0
        return side, side

    def device(self) -> torch.device:
        return self.lm_head.weight.device

    def abilities(self) -> int:
        can = abi.ALL_SITES | abi.Can.EARLY_LOGITS | abi.Can.POSITIONS | abi.Can.MASK | abi.Can.COMPANIONS | \
            abi.Can.BRANCHES | abi.Can.PIXELS | abi.Can.VISUAL_TOKENS | abi.Can.CANDIDATES
        return int(can | (abi.Can.VISION_ATTENTION if self.vision.has_class_token else 0))

    def describe(self) -> abi.Host:
        t = self.text
        head_dim = getattr(t, "head_dim", None) or t.hidden_size // t.num_attention_heads
        return abi.Host(host=f"transformers {transformers.__version__}".encode(), model=self.name.encode() or None,
                        trained_with=self.trained_with.encode() if self.trained_with else None, abilities=self.abilities(),
                        n_layer=self.n_layer, n_head=t.num_attention_heads, n_head_kv=t.num_key_value_heads,
                        head_dim=head_dim, n_embd=t.hidden_size, n_vocab=self.lm_head.out_features,
                        n_vision_blocks=self.vision.n_blocks, n_threads=torch.get_num_threads(), log=_logger())

    def check_length(self, n: int) -> None:
        """Rows of n columns must see all of them."""
        window = getattr(self.text, "sliding_window", None)
        if window and n > window:
            raise refuse(f"{n} tokens exceed the model's sliding window of {window}: methods need rows that see all keys")

    # ---- pieces of a forward pass ----

    def embed(self, ids: list[int]) -> torch.Tensor:
        table = self.lm.embed_tokens
        return table(torch.tensor(ids, dtype=torch.long, device=table.weight.device))

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """(images, tokens, n_embd) visual tokens."""
        c = self.model.config
        out = self.inner.get_image_features(pixel_values=pixels, vision_feature_layer=c.vision_feature_layer,
                                            vision_feature_select_strategy=c.vision_feature_select_strategy)
        return torch.stack(list(out)).to(self.device())
