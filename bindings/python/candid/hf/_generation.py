"""One call of model.generate() with methods at work."""
from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from . import _plugin as abi
from ._branches import Branches
from ._host import refuse
from ._pass import ForwardPass, Hooks, Lane, Segments, wants_of
from ._plugin import Role, Sight
from ._rows import Eyes, Runner, arrange, image_runs, mask_4d, spans_of, visibility
from ._views import Viewer

if TYPE_CHECKING:
    from ._attach import Attachment


def paddings(mask: torch.Tensor | None, batch: int, n: int) -> list[int]:
    """Columns before each row's first token."""
    if mask is None:
        return [0] * batch
    if mask.dim() != 2:
        raise refuse("a static cache is not supported while methods are at work: leave cache_implementation at its default")
    pads = []
    for row in mask.tolist():
        n_tokens = int(sum(row))
        if n_tokens == 0 or row[-n_tokens:] != [1] * n_tokens:
            raise refuse("expected prompts padded on the left (attention mask 0…0 1…1), found another mask: set the "
                         "tokenizer's padding_side to 'left'")
        pads.append(len(row) - n_tokens)
    return pads


class Generation:
    """Watches the host's passes from the prompt on.

    The prompt's pass tells what there is to do: where nothing has to be shown, no hook stays.
    """

    def __init__(self, attachment: Attachment, tasks: list[abi.Task]):
        self.attachment, self.host, self.tasks = attachment, attachment.host, tasks
        self.thread = threading.get_ident()
        self.viewer: Viewer = attachment.viewer
        self.hooks = Hooks(self.host)
        self.runner = Runner(self.host, attachment.plugin, self.viewer, self.hooks)
        self.eyes, self.noised_eyes = Eyes(self.host), Eyes(self.host)
        self.forward = ForwardPass(self.host, attachment.plugin, self.viewer)
        self.lanes: list[Lane] = []
        self.branches: Branches | None = None
        self.ids: torch.Tensor | None = None
        self.pixels: torch.Tensor | None = None
        self.n_generated = -1    # -1: the prompt has not run
        self.running = self.reorders = False
        self._handles: list[Any] = []
        self._followed: DynamicCache | None = None

    # ---- beginning and end ----

    def __enter__(self) -> Generation:
        model, lm = self.host.model, self.host.lm
        blocks = {b for task in self.tasks for b in task.needs.taps[:task.needs.n_taps]}
        blocks |= {b.block for task in self.tasks for b in task.branches() if b.sight == Sight.CHOSEN}
        self.eyes.watch(blocks)
        self._handles = [model.register_forward_pre_hook(self._enter_model, with_kwargs=True),
                         lm.register_forward_pre_hook(self._enter_decoder, with_kwargs=True),
                         model.register_forward_hook(self._leave_model, with_kwargs=True)]
        return self

    def __exit__(self, *_: Any) -> None:
        self._unhook()
        ForwardPass.abandon()
        if self._followed is not None:
            del self._followed.__dict__["reorder_cache"]

    def _unhook(self) -> None:
        while self._handles:
            self._handles.pop().remove()
        self.hooks.remove()
        self.eyes.remove()
        self.noised_eyes.remove()

    def reports(self) -> list[dict[str, Any]]:
        """What the methods did, one object per prompt."""
        n = max(1, len(self.lanes) // max(1, len(self.tasks)))
        return [abi.merged_report(lane.sequence.report(), lane.task.report()) for lane in self.lanes[::n]]

    def _others(self) -> bool:
        """Whether a pass is none of this generation's."""
        return threading.get_ident() != self.thread or self.runner.busy

    # ---- the host's passes ----

    def _enter_model(self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._others() or self.n_generated >= 0:
            return
        ids = kwargs.get("input_ids", args[0] if args else None)
        if ids is None:
            raise refuse("expected input_ids: with inputs_embeds alone nobody knows where images and text stand")
        self.ids, self.pixels = ids, kwargs.get("pixel_values")

    def _enter_decoder(self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._others():
            return None
        if self.n_generated < 0:
            return args, self._prompt(kwargs)
        return args, self._step(kwargs)

    def _leave_model(self, _: Any, args: Any, kwargs: Any, output: Any) -> None:
        if self._others() or not self.lanes:
            return
        logits = output.logits[:, -1:]
        if self.running:
            self.running = False
            self.forward.finish(logits)
        first = self.n_generated < 0
        if first:    # the prompt's pass decided what is done from now on
            self.hooks.remove()
            self.generated = wants_of(self.lanes, abi.GENERATED_ROWS)
            self.hooks.need(self.generated)
        self.n_generated += 1
        if self.branches is not None:
            self._contrast(logits[:, 0], kwargs.get("input_ids", args[0] if args else None), first)
        if first and not (self.generated.any() or self.branches is not None or self.reorders):
            self._unhook()

    # ---- the prompt ----

    def _check(self, cache: Any) -> None:
        if not (isinstance(cache, DynamicCache) and
                all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in cache.layers)):
            found = "none (use_cache=False)" if cache is None else type(cache).__name__
            raise refuse(f"expected a DynamicCache that keeps every token, found {found}: methods measure a prompt once, when "
                         "it is read")
        if cache.get_seq_length():
            raise refuse(f"expected an empty cache, found {cache.get_seq_length()} tokens in it: methods have to see the "
                         "whole prompt in this call")

    def _lanes(self, embeds: torch.Tensor, pads: list[int]) -> list[int]:
        """Makes the rows' sequences.  The number of each row's first image."""
        batch, n = embeds.shape[:2]
        if self.ids is None or tuple(self.ids.shape) != (batch, n) or batch % len(self.tasks):
            raise refuse(f"expected a pass over the whole prompts of {len(self.tasks)} questions, found {batch} rows of {n} "
                         "tokens")
        repeats, first, at = batch // len(self.tasks), [], 0
        for b, row in enumerate(self.ids.tolist()):
            ids, task = row[pads[b]:], self.tasks[b // repeats]
            if b % repeats:    # beams and samples of a prompt measure it each for itself
                task = abi.Task(self.attachment.plugin, task.asked_for, task.n_images)
            runs = image_runs(ids, self.host.image_token, self.host.image_tokens())
            taps, kept = self.eyes.taps(task.needs, range(at, at + len(runs)))
            sequence = abi.Sequence(task, -1, spans_of(len(ids), runs, self.host.image_grid()), taps)
            self.lanes.append(Lane(task, sequence, ids, len(ids), len(ids), runs, pads[b]))
            first.append(at)
            at += len(runs)
        if at != (0 if self.pixels is None else len(self.pixels)):
            raise refuse(f"expected pixel_values of {at} images, one per image of the prompts, found "
                         f"{0 if self.pixels is None else len(self.pixels)}")
        return first

    def _prompt(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        embeds, cache = kwargs["inputs_embeds"], kwargs.get("past_key_values")
        pads = paddings(kwargs.get("attention_mask"), *embeds.shape[:2])
        first_image = self._lanes(embeds, pads)
        self.segments = Segments(self.lanes)
        rows = [embeds[b, lane.pad:] for b, lane in enumerate(self.lanes)]
        kwargs = self._arranged(kwargs, rows)
        if self.segments.of or self.reorders or any(lane.task.needs.n_branches for lane in self.lanes):
            self._check(cache)
            self.host.check_length(embeds.shape[1])
        for lane, row in zip(self.lanes, rows):
            self.runner.companions(lane, row)
        if any(lane.task.needs.n_branches for lane in self.lanes):
            self.branches = Branches(self, rows, first_image)
            self._follow(cache)
        if self.segments.of:
            wants = wants_of(self.lanes, abi.PROMPT_ROWS)
            self.hooks.need(wants)
            self.segments.prompt()
            self.forward.begin(self.segments, wants)
            self.running = True
        return kwargs

    def _arranged(self, kwargs: dict[str, Any], rows: list[torch.Tensor]) -> dict[str, Any]:
        """Image tokens in another order, with other positions, seeing other keys, where a method says so."""
        grid, embeds = self.host.image_grid(), kwargs["inputs_embeds"]
        visible = [visibility(lane.sequence, Role.MAIN, lane.n_prompt, lane.images) for lane in self.lanes]
        self.reorders = any(lane.task.needs.reorders and lane.images for lane in self.lanes)
        if not self.reorders and all(v is None for v in visible):
            return kwargs
        self.hooks.open_attention()
        embeds, positions = embeds.clone(), torch.zeros(embeds.shape[:2], dtype=torch.long, device=embeds.device)
        for b, (lane, row) in enumerate(zip(self.lanes, rows)):
            e, p, lane.next_position = arrange(lane.task, row, lane.images, grid)
            embeds[b, lane.pad:] = e
            positions[b, lane.pad:] = torch.tensor(p, device=embeds.device)
        mask = mask_4d(visible, [lane.pad for lane in self.lanes], embeds.shape[1], self.host)
        return dict(kwargs, inputs_embeds=embeds, position_ids=positions, attention_mask=mask)

    # ---- a step ----

    def _step(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        batch, n = kwargs["inputs_embeds"].shape[:2]
        seen = kwargs["past_key_values"].get_seq_length() if kwargs.get("past_key_values") is not None else 0
        expected = self.lanes[0].pad + self.lanes[0].n_prompt + self.n_generated
        if (batch, n) != (len(self.lanes), 1) or seen != expected:
            raise refuse(f"expected a pass of one new token for each of {len(self.lanes)} rows after {expected} tokens, found "
                         f"{batch} rows of {n} tokens after {seen}: this way of generating is not supported while methods are "
                         "at work")
        self.host.check_length(expected + 1)
        if self.reorders:
            at = [[lane.next_position + self.n_generated] for lane in self.lanes]
            kwargs = dict(kwargs, position_ids=torch.tensor(at, device=kwargs["inputs_embeds"].device))
        if self.generated.any():
            self.segments.step(self.n_generated + 1)
            self.forward.begin(self.segments, self.generated)
            self.running = True
        return kwargs

    # ---- branches ----

    def _contrast(self, logits: torch.Tensor, tokens: torch.Tensor, first: bool) -> None:
        """logits: (rows, vocabulary), changed in place."""
        branches = self.branches
        if first:
            out = branches.start()
            lost = [i for i, (_, k) in enumerate(branches.pairs) if not branches.lanes[i].task.needs_branch(k, 0)]
        else:
            branches.drop_idle(self.n_generated)
            lost = []
            out = branches.step(tokens[:, -1:], self.n_generated) if branches.pairs else None
        of_row: dict[int, dict[int, torch.Tensor]] = {}
        for i, (row, k) in enumerate(branches.pairs):
            if i not in lost:
                of_row.setdefault(row, {})[k] = out[i]
        for row, lane in enumerate(self.lanes):
            n = lane.task.needs.n_branches
            if n:
                views = [of_row.get(row, {}).get(k) for k in range(n)]
                self.viewer.show(lambda main, *others, lane=lane: lane.task.contrast(self.n_generated, main, others),
                                 logits[row], *views)

    def _follow(self, cache: DynamicCache) -> None:
        """Branches change places when the host's beams do."""
        reorder = cache.reorder_cache

        def both(beams: torch.Tensor) -> None:
            reorder(beams)
            if self.branches is not None and self.branches.pairs:
                self.branches.reorder(beams.tolist())

        cache.reorder_cache, self._followed = both, cache
