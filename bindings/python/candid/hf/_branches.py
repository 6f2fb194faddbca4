"""Branches: sequences that the answers of a batch are contrasted with, side by side in a batch and a cache of their own."""
from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from transformers import DynamicCache

from . import _plugin as abi
from ._host import refuse
from ._pass import Lane, Segments, wants_of
from ._plugin import Role, Sight
from ._rows import Prompt, arrange, image_runs, spans_of, stack, visibility
from ._views import view

if TYPE_CHECKING:
    from ._generation import Generation


class Branches:
    """Branch k of row b, for all of them.  Caches are never shared with the host's."""

    def __init__(self, generation: Generation, embeds: list[torch.Tensor], first_image: list[int]):
        """embeds: (n, n_embd) of every row's prompt as the host made them; first_image: number of each row's first image in
        the batch's pixels."""
        self.g, self.cache = generation, DynamicCache(config=generation.host.text)
        self.pairs: list[tuple[int, int]] = []    # (row, branch)
        self.lanes: list[Lane] = []
        prompts = []
        for row, (lane, e) in enumerate(zip(generation.lanes, embeds)):
            for k, branch in enumerate(lane.task.branches()):
                made, ids, runs, taps = self._prompt(lane, branch, k, e, first_image[row])
                n, grid = len(made), self.g.host.image_grid()
                sequence = abi.Sequence(lane.task, k, spans_of(n, runs, grid), taps)
                arranged = Prompt(*arrange(lane.task, made, runs, grid), visibility(sequence, Role.MAIN, n, runs))
                self.pairs.append((row, k))
                self.lanes.append(Lane(lane.task, sequence, ids, n, arranged.next_position, runs))
                prompts.append(arranged)
                self.g.runner.companions(self.lanes[-1], made)
        n = max((len(p.embeds) for p in prompts), default=0)
        for lane in self.lanes:
            lane.pad = n - lane.n_prompt
        self.segments = Segments(self.lanes)
        self.prompts = prompts
        self.mask: torch.Tensor | None = None

    # ---- what they read ----

    def _prompt(self, lane: Lane, branch: abi.Branch, k: int, embeds: torch.Tensor, first_image: int):
        """(embeddings in raster order, ids, image runs, taps)."""
        g, host = self.g, self.g.host
        if branch.sight == Sight.NONE:
            keep = [i for i in range(lane.n_prompt) if not any(b <= i < e for b, e in lane.images)]
            return embeds[keep], [lane.ids[i] for i in keep], [], []
        ids = lane.ids
        if branch.request or branch.prefix or branch.system:
            ids = g.attachment.reworded(lane.ids, len(lane.images), branch)
        features = [embeds[b:e] for b, e in lane.images]
        taps, self._kept = [], None
        images = range(first_image, first_image + len(features))
        if branch.sight == Sight.SAME:
            taps, self._kept = g.eyes.taps(lane.task.needs, images)
        elif branch.sight == Sight.NOISE:
            features = self._noised(lane, k, images)
            taps, self._kept = g.noised_eyes.taps(lane.task.needs, range(len(images)))
        elif branch.sight == Sight.CHOSEN:
            features = [self._chosen(lane, branch, k, f, i) for f, i in zip(features, images)]
        token, n = host.image_token, host.image_tokens()
        pieces, shown, runs, at, done = [], [], [], 0, 0
        for (begin, end), f in zip(image_runs(ids, token, n), features):
            pieces += [host.embed(ids[at:begin]), f.to(embeds.dtype)]
            shown += ids[at:begin] + [token] * len(f)
            done += begin - at
            runs.append((done, done + len(f)))
            done, at = done + len(f), end
        pieces.append(host.embed(ids[at:]))
        return torch.cat(pieces), shown + ids[at:], runs, taps

    def _noised(self, lane: Lane, k: int, images: range) -> list[torch.Tensor]:
        if not images:
            return []
        pixels = self.g.pixels[images.start:images.stop].clone()
        for number, image in enumerate(pixels):
            self.g.viewer.show(lambda v, n=number: lane.task.noise(k, n, v), image)
        self.g.eyes.closed = True
        try:
            self.g.noised_eyes.watch(set(lane.task.needs.taps[:lane.task.needs.n_taps]))
            return list(self.g.host.encode(pixels))
        finally:
            self.g.eyes.closed = False

    def _chosen(self, lane: Lane, branch: abi.Branch, k: int, features: torch.Tensor, image: int) -> torch.Tensor:
        q, keys = self.g.eyes.projected(branch.block, image)
        chosen = lane.task.choose(k, branch.n_chosen, view(q.cpu()), view(keys.cpu()))
        return features[torch.tensor(chosen, device=features.device)]

    # ---- how they run ----

    def start(self) -> torch.Tensor:
        """(pairs, vocabulary) logits after the prompts."""
        self.segments.prompt()
        embeds, positions, mask = stack(self.prompts, self.g.host)
        pads = torch.tensor([lane.pad for lane in self.lanes], device=embeds.device)
        self.mask = (torch.arange(embeds.shape[1], device=embeds.device)[None] >= pads[:, None]).long()
        self.prompts = []
        out = self.g.runner.run(embeds, positions, mask, self.cache, self.segments, wants_of(self.lanes, abi.PROMPT_ROWS))
        self.generated = wants_of(self.lanes, abi.GENERATED_ROWS)
        return out

    def drop_idle(self, n_generated: int) -> None:
        """Forgets branches that take no part in the choice of token n_generated and later ones."""
        keep = [i for i, (_, k) in enumerate(self.pairs) if self.lanes[i].task.needs_branch(k, n_generated)]
        if len(keep) < len(self.pairs):
            self.pairs, self.lanes = [self.pairs[i] for i in keep], [self.lanes[i] for i in keep]
            self.segments = Segments(self.lanes)
            self._select(keep)

    def _select(self, which: list[int]) -> None:
        if which:
            index = torch.tensor(which, device=self.mask.device)
            self.cache.batch_select_indices(index)
            self.mask = self.mask[index]

    def step(self, tokens: torch.Tensor, n_generated: int) -> torch.Tensor:
        """tokens: (rows, 1), the last of n_generated.  (pairs, vocabulary) logits."""
        rows = torch.tensor([row for row, _ in self.pairs], device=tokens.device)
        positions = torch.tensor([[lane.next_position + n_generated - 1] for lane in self.lanes], device=tokens.device)
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.lanes), 1)], 1)
        self.segments.step(n_generated)
        return self.g.runner.run(self.g.host.lm.embed_tokens(tokens[rows]), positions, self.mask, self.cache, self.segments,
                                 self.generated)

    def reorder(self, parents: list[int]) -> None:
        """Row i goes on as row parents[i] was: beams of one prompt, whose branches are alike."""
        at = {pair: i for i, pair in enumerate(self.pairs)}
        try:
            self._select([at[parents[row], k] for row, k in self.pairs])
        except KeyError:
            raise refuse("beams of different prompts changed places") from None
