"""A forward pass of the host's language model on its way through the layers, and the hooks that show its tensors."""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Iterable

import torch

from . import _plugin as abi
from ._attention import active, registered
from ._host import HostModel, refuse
from ._plugin import Role, Site
from ._views import Viewer


@dataclass
class Lane:
    """A sequence in a batch."""

    task: abi.Task
    sequence: abi.Sequence
    ids: list[int]                 # of the prompt, placeholders of images included
    n_prompt: int
    next_position: int             # of the first generated token
    images: list[tuple[int, int]]  # [begin, end) of each image's tokens
    pad: int = 0                   # columns before the first token
    role: Role = Role.MAIN


@dataclass
class Wants:
    """What has to be shown of a pass, by site: one byte per layer and one more."""

    sites: list[bytes]
    early: list[int] = field(default_factory=list)    # layers whose outputs get logits
    embeddings: bool = False
    normed: bool = False

    def any(self) -> bool:
        return any(map(any, self.sites))


def wants_of(lanes: Iterable[Lane], rows: int) -> Wants:
    """The union over sequences."""
    n = 0
    sites: list[bytearray] = []
    embeddings = normed = False
    for lane in lanes:
        if not lane.sequence.run.acts:
            continue
        n = lane.sequence.n_layer
        sites = sites or [bytearray(n + 1) for _ in Site]
        for site in Site:
            for layer, wanted in enumerate(lane.sequence.wants(lane.role, site, rows)):
                sites[site][layer] |= wanted
        if lane.role == Role.MAIN and lane.sequence.run.n_early:
            embeddings |= lane.sequence.run.early_embeddings
            normed |= lane.sequence.run.early_normed
    sites = sites or [bytearray(n + 1) for _ in Site]
    return Wants(list(map(bytes, sites)), [i for i in range(n) if sites[Site.LOGITS][i]], embeddings, normed)


class Segments:
    """The rows of some sequences in a batch, kept from step to step."""

    def __init__(self, lanes: list[Lane]):
        self.of = [(b, lane) for b, lane in enumerate(lanes) if lane.sequence.run.acts]
        self.array = (abi.Segment * max(1, len(self.of)))(*(abi.Segment(
            sequence=lane.sequence.pointer, role=lane.role, batch=b, key_offset=lane.pad) for b, lane in self.of))

    def prompt(self) -> None:
        for segment, (_, lane) in zip(self.array, self.of):
            segment.first_row, segment.n_rows, segment.first_index, segment.n_keys = lane.pad, lane.n_prompt, 0, lane.n_prompt

    def step(self, n_generated: int, n_rows: int = 1) -> None:
        """The last n_rows of n_generated tokens."""
        for segment, (_, lane) in zip(self.array, self.of):
            segment.first_row, segment.n_rows = 0, n_rows
            segment.first_index, segment.n_keys = lane.n_prompt + n_generated - n_rows, lane.n_prompt + n_generated


class ForwardPass:
    """Shows what is wanted of one pass; `finish` gives the logits to the library."""

    def __init__(self, host: HostModel, plugin: abi.Plugin, viewer: Viewer):
        self.host, self.viewer, self._pass = host, viewer, abi.Pass(plugin)
        self.wants = Wants([])
        self._opens: list[bool] = []
        self._begin: Callable[[], None] = lambda: None
        self._outputs: dict[int, torch.Tensor] = {}    # last row of each block's output; -1: of what enters the first

    def begin(self, segments: Segments, wants: Wants) -> None:
        def begin() -> None:
            self._pass.begin(segments.array, len(segments.of))

        if wants is not self.wants:
            scores, probs = wants.sites[Site.ATTENTION_SCORES], wants.sites[Site.ATTENTION_PROBS]
            self.wants, self._opens = wants, [bool(a or b) for a, b in zip(scores, probs)]
        self._begin = begin
        self._outputs.clear()
        begin()
        active.run = self

    def opens(self, layer: int) -> bool:
        """Whether the layer's attention rows are wanted."""
        return self._opens[layer]

    def show(self, site: Site, layer: int, tensor: torch.Tensor) -> None:
        if self.wants.sites[site][layer]:
            if tensor.requires_grad:
                raise refuse("gradients are on: candid changes tensors in place, which autograd cannot follow; generate "
                             "under torch.no_grad()")
            self.viewer.show(lambda view: self._pass.at(site, layer, view), tensor, edits=site != Site.BLOCK_INPUT,
                             again=self._begin)

    def keep(self, layer: int, hidden: torch.Tensor) -> None:
        """Remembers a block's output (-1: the embeddings) for early logits."""
        if self.wants.embeddings if layer < 0 else self.wants.sites[Site.LOGITS][layer]:
            self._outputs[layer] = hidden[:, -1:].clone()

    def finish(self, logits: torch.Tensor) -> None:
        """logits: (batch, 1, vocabulary) of the last rows, changed in place."""
        early = None
        states = ([-1] if self.wants.embeddings else []) + self.wants.early
        if states:
            x = torch.stack([self._outputs[i] for i in states], 2)
            x = self.host.lm.norm.forward(x) if self.wants.normed else x
            early = self.host.lm_head.forward(x)
        if self.wants.sites[Site.LOGITS][-1] or early is not None:
            self.viewer.show(lambda *views: self._pass.logits(*views), logits, early, again=self._begin)
        active.run = None
        self._pass.end()

    @staticmethod
    def abandon() -> None:
        active.run = None


def _first(value: Any) -> torch.Tensor:
    return value[0] if isinstance(value, (tuple, list)) else value


class Hooks:
    """Hooks on the modules whose tensors are wanted, nothing else, and candid's attention function where rows are."""

    def __init__(self, host: HostModel):
        self.host, self._handles, self._known = host, [], set()
        self._implementation: str | None = None    # of the host's attention, where candid's is in its place

    def open_attention(self) -> None:
        if self._implementation is None:
            self._implementation = self.host.text._attn_implementation
            self.host.text._attn_implementation = registered(self._implementation)

    def need(self, wants: Wants) -> None:
        if any(wants.sites[Site.ATTENTION_SCORES]) or any(wants.sites[Site.ATTENTION_PROBS]):
            self.open_attention()
        for site in Site:
            for layer, wanted in enumerate(wants.sites[site]):
                if wanted:
                    self._add(site, layer)
        if wants.embeddings:
            self._add(Site.LOGITS, -1)

    def remove(self) -> None:
        while self._handles:
            self._handles.pop().remove()
        self._known.clear()
        if self._implementation is not None:
            self.host.text._attn_implementation, self._implementation = self._implementation, None

    def _add(self, site: Site, layer: int) -> None:
        if (site, layer) in self._known:
            return
        self._known.add((site, layer))

        def show(tensor: torch.Tensor) -> None:
            if active.run is not None:
                active.run.show(site, layer, tensor)

        def keep(tensor: torch.Tensor) -> None:
            if active.run is not None:
                active.run.keep(layer, tensor)

        def hidden(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
            return args[0] if args else kwargs["hidden_states"]

        lm, add = self.host.lm, self._handles.append
        block = lm.layers[layer] if 0 <= layer < self.host.n_layer else None
        if site == Site.FINAL_NORM:
            add(lm.norm.register_forward_hook(lambda m, args, out: show(out[:, -1:])))
        elif site == Site.LOGITS and layer < 0:
            add(lm.layers[0].register_forward_pre_hook(lambda m, a, k: keep(hidden(a, k)), with_kwargs=True))
        elif block is None:
            pass    # the logits themselves: shown by `finish`
        elif site == Site.BLOCK_INPUT:
            add(block.register_forward_pre_hook(lambda m, a, k: show(hidden(a, k)), with_kwargs=True))
        elif site == Site.HEAD_OUTPUT:
            add(block.self_attn.o_proj.register_forward_pre_hook(lambda m, a: show(a[0])))
        elif site == Site.MLP_OUTPUT:
            add(block.mlp.register_forward_hook(lambda m, a, out: show(out)))
        elif site == Site.BLOCK_OUTPUT:
            add(block.register_forward_hook(lambda m, a, out: show(_first(out)), prepend=True))
        elif site == Site.LOGITS:
            add(block.register_forward_hook(lambda m, a, out: keep(_first(out))))
