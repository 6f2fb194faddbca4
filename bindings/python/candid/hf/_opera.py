"""OPERA's search: candid chooses, the host's model runs beams and candidates."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache

from . import _plugin as abi
from ._generation import paddings
from ._host import refuse
from ._pass import ForwardPass, Hooks, Lane, Segments, wants_of
from ._plugin import Role, Verb
from ._rows import Eyes, Prompt, Runner, arrange, image_runs, spans_of, stack, visibility

if TYPE_CHECKING:
    from ._attach import Attachment

Columns = list[tuple[torch.Tensor, torch.Tensor]]    # keys and values of one token, layer by layer: (heads, 1, size)


class Beams:
    """Caches of beams.  The prompt's keys and values are kept once; generated tokens' are kept one by one, so that a beam of
    any earlier step can be put together again."""

    def __init__(self, prompt: DynamicCache):
        self.prompt = [(layer.keys, layer.values) for layer in prompt.layers]

    def cache(self, beams: list[list[Columns]]) -> DynamicCache:
        """A batch with these beams; each is the list of its tokens' columns."""
        out = DynamicCache()
        for i, (keys, values) in enumerate(self.prompt):
            parts = [torch.stack([torch.cat([whole[0], *(token[i][kind] for token in beam)], 1) for beam in beams])
                     for kind, whole in enumerate((keys, values))]
            out.update(*parts, i)
        return out

    @staticmethod
    def last_columns(cache: DynamicCache, row: int) -> Columns:
        return [(layer.keys[row, :, -1:].clone(), layer.values[row, :, -1:].clone()) for layer in cache.layers]


class OperaRun:
    """One question."""

    def __init__(self, attachment: Attachment, task: abi.Task, ids: list[int], pixels: torch.Tensor | None):
        self.host, self.task, self.viewer = attachment.host, task, attachment.viewer
        self.hooks = Hooks(self.host)
        self.runner = Runner(self.host, attachment.plugin, self.viewer, self.hooks)
        self.ids, self.pixels = ids, pixels

    def close(self) -> None:
        self.hooks.remove()
        ForwardPass.abandon()

    # ---- passes ----

    def read_prompt(self) -> torch.Tensor:
        """(1, vocabulary) logits after the prompt."""
        host, task, ids = self.host, self.task, self.ids
        runs = image_runs(ids, host.image_token, host.image_tokens())
        if len(runs) != (0 if self.pixels is None else len(self.pixels)):
            raise refuse(f"expected pixel_values of {len(runs)} images, found {0 if self.pixels is None else len(self.pixels)}")
        eyes, embeds = Eyes(host), host.embed(ids).clone()
        eyes.watch(set(task.needs.taps[:task.needs.n_taps]))
        try:
            if runs:
                for (begin, end), features in zip(runs, host.encode(self.pixels)):
                    embeds[begin:end] = features
            taps, _kept = eyes.taps(task.needs, range(len(runs)))
            grid, n = host.image_grid(), len(ids)
            sequence = abi.Sequence(task, -1, spans_of(n, runs, grid), taps)
        finally:
            eyes.remove()
        prompt = Prompt(*arrange(task, embeds, runs, grid), visibility(sequence, Role.MAIN, n, runs))
        self.lane = Lane(task, sequence, ids, n, prompt.next_position, runs)
        self.runner.companions(self.lane, embeds)
        segments, cache = Segments([self.lane]), DynamicCache()
        segments.prompt()
        logits = self.runner.run(*stack([prompt], host), cache, segments, wants_of([self.lane], abi.PROMPT_ROWS))
        self.beams = Beams(cache)
        self.wants = wants_of([self.lane], abi.GENERATED_ROWS)
        return logits

    def run(self, beams: list[list[Columns]], tokens: list[int]) -> tuple[torch.Tensor, DynamicCache]:
        """Runs tokens[i] as the next one of beams[i]: (logits, cache)."""
        n_tokens, device = len(beams[0]) + 1, self.host.device()
        cache, segments = self.beams.cache(beams), Segments([self.lane] * len(beams))
        segments.step(n_tokens)
        positions = torch.full((len(beams), 1), self.lane.next_position + n_tokens - 1, device=device)
        mask = torch.ones(len(beams), self.lane.n_prompt + n_tokens, dtype=torch.long, device=device)
        logits = self.runner.run(self.host.embed(tokens)[:, None], positions, mask, cache, segments, self.wants)
        return logits, cache

    # ---- the search ----

    def search(self, max_new_tokens: int, ends: list[int]) -> abi.Search:
        logits = self.read_prompt()
        n_ids = self.lane.n_prompt - sum(e - b - 1 for b, e in self.lane.images)
        search = abi.Search(self.task, self.lane.sequence, n_ids, max_new_tokens, ends)
        show = self.viewer.show

        def told(use: Any, rows: torch.Tensor) -> abi.Order:
            out = []
            show(lambda v: out.append(use(v)), rows)
            return out[0]

        beams: list[list[Columns]] = [[]]
        history = [(beams, logits.clone())]    # by number of tokens: beams and their logits
        order = told(search.logits, logits)
        while order.verb != Verb.STOP:
            if order.verb == Verb.MEASURE:
                n, c = order.n_beams, order.n_candidates
                measured = self.run([beams[i] for i in range(n) for _ in range(c)], order.tokens[:n * c])
                order = search.measured()
            elif order.verb == Verb.CONTINUE:
                beams, logits = self._go_on(search, beams, measured, c, order)
                del history[len(beams[0]):]
                history.append((beams, logits.clone()))
                order = told(search.logits, logits)
            else:
                beams, logits = history[order.n_tokens]
                del history[order.n_tokens + 1:]
                order = told(search.again, logits.clone())
        return search

    def _go_on(self, search: abi.Search, beams: list[list[Columns]], measured: tuple[torch.Tensor, DynamicCache], c: int,
               order: abi.Order) -> tuple[list[list[Columns]], torch.Tensor]:
        """The new beams and their logits; what was measured as a candidate is at hand, the rest is run."""
        n = order.n_beams
        tokens, parents, candidates = (list(x[:n]) for x in (order.tokens, order.parents, order.candidates))
        new: list[list[Columns]] = [[]] * n
        logits = measured[0].new_empty(n, measured[0].shape[1])
        for i in range(n):
            if candidates[i] >= 0:
                row = parents[i] * c + candidates[i]
                new[i] = beams[parents[i]] + [Beams.last_columns(measured[1], row)]
                logits[i] = measured[0][row]
        others = [i for i in range(n) if candidates[i] < 0]
        if others:
            out, cache = self.run([beams[parents[i]] for i in others], [tokens[i] for i in others])
            search.measured_beams(others)
            for row, i in enumerate(others):
                new[i] = beams[parents[i]] + [Beams.last_columns(cache, row)]
                logits[i] = out[row]
        return new, logits


@torch.no_grad()
def generate_opera(attachment: Attachment, *, input_ids: torch.Tensor, pixel_values: torch.Tensor | None = None,
                   attention_mask: torch.Tensor | None = None, max_new_tokens: int = 512, **other: Any) -> torch.Tensor:
    """One prompt; ids of prompt and best answer, its end token included where it came."""
    if other:
        raise refuse(f"generate_opera takes input_ids, pixel_values, attention_mask and max_new_tokens, not {sorted(other)}")
    if len(input_ids) != 1:
        raise refuse(f"expected one prompt, found {len(input_ids)}: OPERA searches for one answer at a time")
    if not attachment.searches:
        raise refuse('opera is off: attach(model, {"opera": true})')
    arguments = dict(attention_mask=attention_mask)
    tasks, asked = attachment.tasks(input_ids, arguments)
    pad = paddings(arguments["attention_mask"], *asked.shape)[0]
    end = attachment.model.generation_config.eos_token_id
    ends = [] if end is None else list(end) if isinstance(end, (list, tuple)) else [end]
    run = OperaRun(attachment, tasks[0], asked[0, pad:].tolist(), pixel_values)
    try:
        search = run.search(max_new_tokens, ends)
        answer, _score = search.answer(0)
        attachment.reports = [abi.merged_report(run.lane.sequence.report(), tasks[0].report(), search.report())]
    finally:
        run.close()
    return torch.cat([input_ids, torch.tensor([answer], dtype=input_ids.dtype, device=input_ids.device)], 1)
