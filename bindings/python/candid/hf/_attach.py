"""attach() and what it gives back."""
from __future__ import annotations

import inspect
import threading
from typing import Any

import torch

from . import _plugin as abi
from ..config import Config
from ._generation import Generation, paddings
from ._host import HostModel, check_version, refuse
from ._prompts import Conversation, inputs as make_inputs
from ._rows import image_runs
from ._views import Viewer

_PROBE = "Isn't there a dog in the image?"    # a question that LQCD words otherwise
_lock = threading.Lock()    # of attaching and detaching


class Attachment:
    """A model with methods at work in its generate().  Made by attach(); also a context manager that detaches.

    Attributes
    ----------
    reports : list of dict
        What the methods did in the last call of generate(), ask() or generate_opera(): one object per prompt.
    """

    def __init__(self, model: Any, config: Any, processor: Any, conversation: str | None, name: str | None,
                 trained_with: str | None):
        self.host, self.config = HostModel(model, name, trained_with), Config(config)
        self.plugin = abi.Plugin(self.host.describe(), self.config)
        self.processor, self.viewer, self.reports = processor, Viewer(), []
        self.template = conversation
        self.conversation = None if processor is None else Conversation(processor, conversation, self.host.image_tokens())
        task = abi.Task(self.plugin, _PROBE, 1)
        self.searches = task.needs.searches
        self._reads = self._reason_to_read(task)
        if self._reads and processor is None:
            raise refuse(f"{self._reads}: attach(model, config, processor=...) needs the model's processor")
        self._busy = threading.Lock()

    @staticmethod
    def _reason_to_read(task: abi.Task) -> str | None:
        """Why the user's text has to be known, if it has."""
        for branch in task.branches():
            if branch.request or branch.prefix or branch.system:
                return f"{branch.method.decode()} puts other text in the place of the user's"
        return "the methods put another question in the place of the user's" if task.request != _PROBE else None

    # ---- use ----

    @property
    def model(self) -> Any:
        return self.host.model

    def __enter__(self) -> Attachment:
        return self

    def __exit__(self, *_: Any) -> None:
        self.detach()

    def detach(self) -> None:
        """Gives the model back as it was.  Refused while it generates."""
        with _lock:
            if _attached_to(self.model) is not self:
                return
            if not self._busy.acquire(blocking=False):
                raise refuse("the model is generating: detach it when generate() has returned")
            try:
                del self.model.__dict__["generate"]
            finally:
                self._busy.release()

    def __reduce__(self) -> Any:
        raise refuse("an attached model cannot be copied or pickled: detach it first")

    def inputs(self, images: Any, question: str, **options: Any) -> Any:
        """What generate() takes for a question about images (one, a list, or None)."""
        if self.processor is None:
            raise refuse("attach(model, config, processor=...) needs the model's processor for this")
        out = make_inputs(self.processor, images, question, self.template, **options)
        return out.to(self.host.device(), self.host.lm_head.weight.dtype)

    def ask(self, images: Any, question: str, **options: Any) -> str:
        """The answer to one question; options are generate()'s.  With OPERA its own search is used."""
        prompt = self.inputs(images, question)
        generate = self.generate_opera if self.searches else self.model.generate
        ids = generate(**prompt, **options)
        return self.conversation.tokenizer.decode(ids[0, prompt.input_ids.shape[1]:], skip_special_tokens=True).strip()

    def generate_opera(self, **arguments: Any) -> torch.Tensor:
        """OPERA's search over the model's own passes: candid.hf.generate_opera."""
        from ._opera import generate_opera
        with self._alone():
            return generate_opera(self, **arguments)

    def capabilities(self) -> dict[str, Any]:
        return abi.host_capabilities(self.host.describe(), self.config)

    # ---- generate() ----

    def _alone(self) -> Any:
        attachment = self

        class Alone:
            def __enter__(self) -> None:
                if not attachment._busy.acquire(blocking=False):
                    raise refuse("another call is generating with this attached model: one at a time, or one model per thread")

            def __exit__(self, *_: Any) -> None:
                attachment._busy.release()

        return Alone()

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """In the place of model.generate: takes and returns the same."""
        own = type(self.model).generate
        with self._alone():
            if self.searches:
                raise refuse("opera chooses tokens itself, which generate() leaves no room for: use candid.hf.generate_opera()")
            kwargs = self._by_name(own, args, kwargs)
            self._check_way(kwargs)
            ids = kwargs.pop("inputs", None)
            ids = kwargs.pop("input_ids", None) if ids is None else ids
            if ids is None or ids.dim() != 2:
                raise refuse("expected input_ids (batch, tokens): with inputs_embeds alone nobody knows where images and text "
                             "stand")
            tasks, asked = self.tasks(ids, kwargs)
            with Generation(self, tasks) as generation:
                out = own(self.model, asked, **kwargs)
                self.reports = generation.reports()
            return out if asked is ids else self._with_prompt(out, ids, asked.shape[1])

    def _by_name(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        bound = inspect.signature(function).bind_partial(self.model, *args, **kwargs).arguments
        return {**{k: v for k, v in bound.items() if k not in ("self", "kwargs")}, **bound.get("kwargs", {})}

    def _check_way(self, kwargs: dict[str, Any]) -> None:
        """Ways of generating that are not passes of one token per row."""
        call = getattr(self.model, "_compiled_call_impl", None) or getattr(self.model.forward, "_torchdynamo_orig_callable", None)
        if call is not None:
            raise refuse("the model's forward is compiled: methods need its layers to run one by one; detach, or use a model "
                         "that was not compiled")
        config = kwargs.get("generation_config") or self.model.generation_config

        def setting(name: str) -> Any:
            return kwargs[name] if name in kwargs else getattr(config, name, None)

        for name, why in (("assistant_model", "rows of several guessed tokens at once"),
                          ("prompt_lookup_num_tokens", "rows of several guessed tokens at once"),
                          ("prefill_chunk_size", "methods measure the whole prompt in one pass"),
                          ("penalty_alpha", "contrastive search"), ("dola_layers", "a way of decoding of its own (candid has "
                                                                                   "dola as a method)"),
                          ("force_words_ids", "constrained search"), ("constraints", "constrained search"),
                          ("custom_generate", "a way of decoding of its own")):
            if setting(name):
                raise refuse(f"{name} is not supported while methods are attached: {why}")
        if (setting("num_beam_groups") or 1) > 1:
            raise refuse("num_beam_groups is not supported while methods are attached: diverse beam search")
        if kwargs.get("past_key_values") is not None and kwargs["past_key_values"].get_seq_length():
            raise refuse("past_key_values of an earlier call are not supported: methods have to see the whole prompt")

    def tasks(self, ids: torch.Tensor, kwargs: dict[str, Any]) -> tuple[list[abi.Task], torch.Tensor]:
        """A task per prompt, and the prompts as they are to be asked; kwargs' attention mask follows them."""
        rows, out, changed = ids.tolist(), [], False
        pads = paddings(kwargs.get("attention_mask"), *ids.shape)
        token, n = self.host.image_token, self.host.image_tokens()
        for i, (row, pad) in enumerate(zip(rows, pads)):
            rows[i] = row = row[pad:]
            n_images = len(image_runs(row, token, n))
            request = self.conversation.must_find(row, n_images, self._reads) if self._reads else ""
            out.append(abi.Task(self.plugin, request, n_images))
            if self._reads and out[-1].request != request:
                rows[i] = self.conversation.ids(self.conversation.text(out[-1].request, n_images))
                changed = True
        if not changed:
            return out, ids
        width, filler = max(map(len, rows)), self.conversation.tokenizer.pad_token_id or 0
        kwargs["attention_mask"] = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows], device=ids.device)
        return out, torch.tensor([[filler] * (width - len(r)) + r for r in rows], device=ids.device)

    def reworded(self, ids: list[int], n_images: int, branch: abi.Branch) -> list[int]:
        """The prompt that a branch reads in place of `ids`."""
        asked = self.conversation.must_find(ids, n_images, self._reads or "a branch reads another text")
        request = branch.request.decode() if branch.request else asked
        return self.conversation.ids(self.conversation.text(request, n_images,
                                                            branch.prefix.decode() if branch.prefix else None,
                                                            branch.system.decode() if branch.system else None))

    @staticmethod
    def _with_prompt(out: Any, ids: torch.Tensor, n_asked: int) -> Any:
        """generate()'s answer with the prompt that the caller gave in place of the one that was asked."""
        sequences = out if isinstance(out, torch.Tensor) else out.sequences
        repeats = len(sequences) // len(ids)
        sequences = torch.cat([ids.repeat_interleave(repeats, 0).to(sequences.device), sequences[:, n_asked:]], 1)
        if isinstance(out, torch.Tensor):
            return sequences
        out.sequences = sequences
        return out


def _attached_to(model: Any) -> Attachment | None:
    """The attachment is the object whose method stands in for the model's generate()."""
    owner = getattr(getattr(model, "__dict__", {}).get("generate"), "__self__", None)
    return owner if isinstance(owner, Attachment) else None


def attach(model: Any, config: Any = None, *, processor: Any = None, conversation: str | None = None, name: str | None = None,
           trained_with: str | None = None) -> Attachment:
    """Puts methods to work in model.generate().

    Parameters
    ----------
    model : LlavaForConditionalGeneration
    config : dict, JSON text, file name or candid.Config
        Which methods: docs/config.md.
    processor : optional
        The model's processor; methods that put other text in the place of the user's need it (LQCD, ICD).
    conversation : str, optional
        What stands around a request, with "{prompt}" and "<image>"; by default the processor's chat template.
    name : str, optional
        The model's name in tables of known models; by default its directory's.
    trained_with : str, optional
        A scheme that the weights were made with, such as "cca".

    Raises
    ------
    UnsupportedError
        The model cannot be attached to, is attached to already, or a method that is on cannot run in it: the message says
        why.
    """
    check_version()
    with _lock:
        if _attached_to(model) is not None:
            raise refuse("the model is attached to already: one configuration holds all methods; detach the other first")
        if "generate" in getattr(model, "__dict__", {}):
            raise refuse("model.generate was replaced by another library: candid.hf would hide it")
        attachment = Attachment(model, config, processor, conversation, name, trained_with)
        model.generate = attachment.generate
    return attachment


def attachment_of(model: Any) -> Attachment:
    found = _attached_to(model)
    if found is None:
        raise refuse("the model is not attached to: candid.hf.attach(model, config) comes first")
    return found


def detach(model: Any) -> None:
    """Gives an attached model back as it was.  Refused while it generates."""
    attachment_of(model).detach()


def generate_opera(model: Any, **arguments: Any) -> torch.Tensor:
    """OPERA over an attached model's own passes.

    Takes input_ids, pixel_values, attention_mask of one prompt, and max_new_tokens; returns ids as generate() does.
    """
    return attachment_of(model).generate_opera(**arguments)


def capabilities(model: Any, config: Any = None) -> dict[str, Any]:
    """Which methods a model can run: by name {"runs": bool, "needs": [...], "why": "..."}."""
    check_version()
    return abi.host_capabilities(HostModel(model, None, None).describe(), None if config is None else Config(config))
