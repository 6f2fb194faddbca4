"""Rows of a batch: their spans, the order and positions of their tokens, what they see, and what branches see instead."""
from __future__ import annotations

import ctypes as C
import threading
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from . import _plugin as abi
from ._host import HostModel, refuse
from ._pass import ForwardPass, Hooks, Lane, Segments, Wants, wants_of
from ._plugin import Role
from ._views import Viewer, view

Runs = list[tuple[int, int]]    # [begin, end) of each image in a prompt


def image_runs(ids: list[int], token: int, n_tokens: int) -> Runs:
    """Where images stand; several may follow each other directly."""
    runs, at = [], 0
    while at < len(ids):
        if ids[at] != token:
            at += 1
            continue
        end = at + n_tokens
        if ids[at:end] != [token] * n_tokens:
            raise refuse(f"expected {n_tokens} image placeholders in a row, found fewer at token {at} of the prompt: let the "
                         "processor expand them")
        runs.append((at, end))
        at = end
    return runs


def spans_of(n: int, runs: Runs, grid: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    """For candid_sequence_create."""
    out, at = [], 0
    for begin, end in runs + [(n, n)]:
        if begin > at:
            out.append((abi.TEXT, begin - at, 0, 0))
        if end > begin:
            whole = end - begin == grid[0] * grid[1]
            out.append((abi.IMAGE, end - begin, *(grid if whole else (0, 0))))
        at = end
    return out


@dataclass
class Prompt:
    """One row before it runs: embeddings as they are fed, positions, and what rows see unless that is causal."""

    embeds: torch.Tensor    # (n, n_embd)
    positions: list[int]
    next_position: int
    visible: torch.Tensor | None    # (n, n) or None: causal


def arrange(task: abi.Task, embeds: torch.Tensor, runs: Runs, grid: tuple[int, int]) -> tuple[torch.Tensor, list[int], int]:
    """Embeddings and positions with image tokens in the order that the methods ask for."""
    if not task.needs.reorders or not grid[0]:
        return embeds, list(range(len(embeds))), len(embeds)
    order, positions, at, position = [], [], 0, 0
    for begin, end in runs + [(len(embeds), len(embeds))]:
        order += range(at, begin)
        positions += range(position, position + begin - at)
        position += begin - at
        if end - begin == grid[0] * grid[1]:
            cells, places, n_positions = task.place(*grid)
            order += [begin + c for c in cells]
            positions += [position + p for p in places]
            position += n_positions
        else:
            order += range(begin, end)
            positions += range(position, position + end - begin)
            position += end - begin
        at = end
    return embeds[torch.tensor(order, device=embeds.device)], positions, position


def visibility(sequence: abi.Sequence, role: Role, n: int, runs: Runs) -> torch.Tensor | None:
    """(n, n) what rows of a prompt see, or None where that is causal."""
    if not runs or role == Role.TEXT_ONLY:
        return None
    reach, out = abi.Reach(), None
    for index in range(n):
        sequence.reach(role, index, reach)
        if reach.n_keys != index + 1 or reach.also_end:
            if out is None:
                out = torch.ones(n, n, dtype=torch.bool).tril()
            out[index] = False
            out[index, :reach.n_keys] = True
            out[index, reach.also_begin:reach.also_end] = True
    return out


class Eyes:
    """What the class token looks at in the image encoder: inputs of the attention of some blocks, kept as they pass."""

    def __init__(self, host: HostModel):
        self.host, self.inputs, self._handles, self.closed = host, {}, [], False
        self._thread = threading.get_ident()

    def watch(self, blocks: set[int]) -> None:
        self.remove()
        for block in sorted(blocks):
            def keep(module: Any, args: Any, kwargs: Any, block: int = block) -> None:
                if not self.closed and threading.get_ident() == self._thread:
                    self.inputs[block] = args[0] if args else kwargs["hidden_states"]
            attention = self.host.vision.layers[block].self_attn
            self._handles.append(attention.register_forward_pre_hook(keep, with_kwargs=True))

    def remove(self) -> None:
        while self._handles:
            self._handles.pop().remove()
        self.inputs.clear()

    def projected(self, block: int, image: int) -> tuple[torch.Tensor, torch.Tensor]:
        """q of the class token (width) and k (tokens, width), with biases, heads not split."""
        attention, x = self.host.vision.layers[block].self_attn, self.inputs[block][image]
        return attention.q_proj(x[0]).contiguous(), attention.k_proj(x).contiguous()

    def of_cls(self, block: int, image: int) -> torch.Tensor:
        """(heads, patches) probabilities."""
        q, k = self.projected(block, image)
        n = self.host.vision.n_heads
        q, k = q.view(n, 1, -1), k.view(len(k), n, -1).transpose(0, 1)
        scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(1, 2))[:, 0]
        return torch.softmax(scores, -1, dtype=torch.float32)[:, 1:].cpu().contiguous()

    def taps(self, needs: abi.Needs, images: range) -> tuple[list[abi.Tap], list[torch.Tensor]]:
        """Views of what the methods want of these images, and the tensors that must outlive them."""
        kept = [self.of_cls(block, i) for i in images for block in needs.taps[:needs.n_taps]]
        where = [(i, block) for i in range(len(images)) for block in needs.taps[:needs.n_taps]]
        return [abi.Tap(image=i, block=b, of_cls=C.pointer(view(t))) for (i, b), t in zip(where, kept)], kept


class Runner:
    """Forward passes of our own over the host's language model: companions, branches and beams."""

    def __init__(self, host: HostModel, plugin: abi.Plugin, viewer: Viewer, hooks: Hooks):
        self.host, self.hooks, self.busy = host, hooks, False
        self.forward = ForwardPass(host, plugin, viewer)

    def run(self, embeds: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor, cache: DynamicCache | None,
            segments: Segments, wants: Wants, logits: bool = True) -> torch.Tensor | None:
        """(batch, vocabulary) logits of the last rows, after the methods' edits."""
        shown = bool(segments.of)
        if cache is not None:
            self.host.check_length(cache.get_seq_length() + embeds.shape[1])
        self.busy = True
        try:
            if shown:
                self.hooks.need(wants)
                self.forward.begin(segments, wants)
            hidden = self.host.lm(inputs_embeds=embeds, position_ids=positions, attention_mask=mask, past_key_values=cache,
                                  use_cache=cache is not None).last_hidden_state
            out = self.host.lm_head.forward(hidden[:, -1:]) if logits else None
            if shown:
                self.forward.finish(out)
            return None if out is None else out[:, 0]
        finally:
            self.busy = False
            ForwardPass.abandon()

    def companion(self, lane: Lane, role: Role, embeds: torch.Tensor) -> None:
        """Runs another prompt whole; embeds: (n, n_embd) of the lane's prompt, in raster order."""
        if role == Role.TEXT_ONLY:
            keep = [i for i in range(len(embeds)) if not any(b <= i < e for b, e in lane.images)]
            prompt = Prompt(embeds[keep], list(range(len(keep))), len(keep), None)
        else:
            grid = self.host.image_grid()
            prompt = Prompt(*arrange(lane.task, embeds, lane.images, grid), None)
            prompt.visible = visibility(lane.sequence, role, len(embeds), lane.images)
        other = Lane(lane.task, lane.sequence, [], len(prompt.embeds), prompt.next_position, lane.images, role=role)
        segments = Segments([other])
        segments.prompt()
        self.run(*stack([prompt], self.host), None, segments, wants_of([other], abi.PROMPT_ROWS), logits=False)

    def companions(self, lane: Lane, embeds: torch.Tensor) -> None:
        for role in (Role.TEXT_ONLY, Role.PLAIN):
            if lane.sequence.run.companions & 1 << role:
                self.companion(lane, role, embeds)


def mask_4d(visible: list[torch.Tensor | None], pads: list[int], n: int, host: HostModel) -> torch.Tensor:
    """(batch, 1, n, n) in the form that the model's attention implementation takes; padding rows see themselves."""
    out = torch.zeros(len(pads), 1, n, n, dtype=torch.bool)
    for b, (pad, seen) in enumerate(zip(pads, visible)):
        out[b, 0] = torch.eye(n, dtype=torch.bool)
        out[b, 0, pad:, pad:] = torch.ones(n - pad, n - pad, dtype=torch.bool).tril() if seen is None else seen
    out = out.to(host.device())
    if host.text._attn_implementation.endswith("eager"):
        dtype = host.lm.embed_tokens.weight.dtype
        return torch.zeros(out.shape, dtype=dtype, device=out.device).masked_fill(~out, torch.finfo(dtype).min)
    return out


def stack(prompts: list[Prompt], host: HostModel) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Embeddings, position ids and mask of prompts side by side, padded on the left."""
    n = max(len(p.embeds) for p in prompts)
    pads = [n - len(p.embeds) for p in prompts]
    embeds = torch.stack([torch.cat([p.embeds.new_zeros(pad, p.embeds.shape[1]), p.embeds]) for p, pad in zip(prompts, pads)])
    positions = torch.tensor([[0] * pad + p.positions for p, pad in zip(prompts, pads)], device=embeds.device)
    if any(p.visible is not None for p in prompts):
        return embeds, positions, mask_4d([p.visible for p in prompts], pads, n, host)
    mask = torch.tensor([[0] * pad + [1] * (n - pad) for pad in pads], device=embeds.device)
    return embeds, positions, mask
