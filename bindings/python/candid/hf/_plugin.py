"""include/candid/plugin.h in ctypes: structs, prototypes, and objects that own a handle and raise on failure."""
from __future__ import annotations

import ctypes as C
import enum
import functools
import json
from typing import Any, Sequence as Seq

from .. import _abi
from .._library import call as _call, library
from ..config import Config
from ..errors import BY_STATUS, CandidError, UnsupportedError

ABI_VERSION = 1


class Site(enum.IntEnum):
    BLOCK_INPUT = 0
    ATTENTION_SCORES = 1
    ATTENTION_PROBS = 2
    HEAD_OUTPUT = 3
    MLP_OUTPUT = 4
    BLOCK_OUTPUT = 5
    FINAL_NORM = 6
    LOGITS = 7


class Can(enum.IntFlag):
    EARLY_LOGITS = 1 << 8
    POSITIONS = 1 << 9
    MASK = 1 << 10
    COMPANIONS = 1 << 11
    BRANCHES = 1 << 12
    VISION_ATTENTION = 1 << 13
    PIXELS = 1 << 14
    VISUAL_TOKENS = 1 << 15
    CANDIDATES = 1 << 16


ALL_SITES = 0xff


class Role(enum.IntEnum):
    MAIN = 0
    TEXT_ONLY = 1
    PLAIN = 2


class Sight(enum.IntEnum):
    SAME = 0
    NONE = 1
    NOISE = 2
    CHOSEN = 3


class Verb(enum.IntEnum):
    MEASURE = 0
    CONTINUE = 1
    ROLLBACK = 2
    STOP = 3


PROMPT_ROWS, GENERATED_ROWS = 1, 2
TEXT, IMAGE = 0, 1
HOST_MEMORY, CUDA_MEMORY = 0, 1
UNSUPPORTED = 4    # CANDID_ERROR_UNSUPPORTED, as status of UnsupportedError
MAX_TAPS = 4

LogFunction = C.CFUNCTYPE(None, C.c_void_p, C.c_int, C.c_char_p)


class Struct(C.Structure):
    """A struct of the ABI: struct_size comes first and is filled in."""

    def __init__(self, **fields: Any):
        super().__init__(struct_size=C.sizeof(type(self)), **fields)


Error = _abi.candid_error


class Host(Struct):
    _fields_ = [("struct_size", C.c_size_t), ("host", C.c_char_p), ("model", C.c_char_p), ("trained_with", C.c_char_p),
                ("abilities", C.c_uint32), ("n_layer", C.c_int32), ("n_head", C.c_int32), ("n_head_kv", C.c_int32),
                ("head_dim", C.c_int32), ("n_embd", C.c_int32), ("n_vocab", C.c_int32), ("n_vision_blocks", C.c_int32),
                ("score_scale", C.c_float), ("n_threads", C.c_int32), ("log", LogFunction), ("log_user_data", C.c_void_p)]


class Needs(Struct):
    _fields_ = [("struct_size", C.c_size_t), ("n_branches", C.c_int32), ("n_taps", C.c_int32),
                ("taps", C.c_int32 * MAX_TAPS), ("reorders", C.c_bool), ("searches", C.c_bool), ("n_beams", C.c_int32),
                ("n_candidates", C.c_int32)]


class Branch(Struct):
    _fields_ = [("struct_size", C.c_size_t), ("method", C.c_char_p), ("name", C.c_char_p), ("sight", C.c_int),
                ("n_chosen", C.c_int32), ("block", C.c_int32), ("request", C.c_char_p), ("prefix", C.c_char_p),
                ("system", C.c_char_p)]


class View(Struct):
    _fields_ = [("struct_size", C.c_size_t), ("data", C.c_void_p), ("dtype", C.c_int), ("space", C.c_int),
                ("stream", C.c_void_p), ("device", C.c_int32), ("n_dims", C.c_int32), ("shape", C.c_int64 * 4),
                ("strides", C.c_int64 * 4)]


class Span(Struct):
    _fields_ = [("struct_size", C.c_size_t), ("kind", C.c_int), ("n_tokens", C.c_int32), ("grid_h", C.c_int32),
                ("grid_w", C.c_int32)]


class Tap(Struct):
    _fields_ = [("struct_size", C.c_size_t), ("image", C.c_int32), ("block", C.c_int32), ("of_cls", C.POINTER(View))]


class Run(Struct):
    _fields_ = [("struct_size", C.c_size_t), ("acts", C.c_bool), ("whole_prompt", C.c_bool), ("companions", C.c_uint32),
                ("early_embeddings", C.c_bool), ("early_normed", C.c_bool), ("n_early", C.c_int32)]


class Reach(Struct):
    _fields_ = [("struct_size", C.c_size_t), ("n_keys", C.c_int32), ("also_begin", C.c_int32), ("also_end", C.c_int32)]


class Segment(Struct):
    _fields_ = [("struct_size", C.c_size_t), ("sequence", C.c_void_p), ("role", C.c_int), ("batch", C.c_int32),
                ("first_row", C.c_int32), ("n_rows", C.c_int32), ("first_index", C.c_int32), ("n_keys", C.c_int32),
                ("key_offset", C.c_int32), ("key_columns", C.POINTER(C.c_int32))]


class Order(Struct):
    _fields_ = [("struct_size", C.c_size_t), ("verb", C.c_int), ("n_tokens", C.c_int32), ("n_beams", C.c_int32),
                ("n_candidates", C.c_int32), ("tokens", C.POINTER(C.c_int32)), ("parents", C.POINTER(C.c_int32)),
                ("candidates", C.POINTER(C.c_int32))]


class SearchParams(Struct):
    _fields_ = [("struct_size", C.c_size_t), ("n_prompt_ids", C.c_int32), ("max_new_tokens", C.c_int32),
                ("end_tokens", C.POINTER(C.c_int32)), ("n_end_tokens", C.c_size_t)]


_P, _I, _S = C.c_void_p, C.c_int32, C.c_char_p
_TO, _ERR, _VIEW, _INTS = C.POINTER(C.c_void_p), C.POINTER(Error), C.POINTER(View), C.POINTER(C.c_int32)
_PROTOTYPES: dict[str, tuple[Any, list[Any]]] = {
    "candid_abi_version": (C.c_uint32, []),
    "candid_host_capabilities": (C.c_int, [C.POINTER(Host), _P, _TO, _ERR]),
    "candid_plugin_create": (C.c_int, [C.POINTER(Host), _P, _TO, _ERR]),
    "candid_plugin_free": (None, [_P]),
    "candid_task_create": (C.c_int, [_P, _S, C.c_size_t, _TO, _ERR]),
    "candid_task_free": (None, [_P]),
    "candid_task_request": (_S, [_P]),
    "candid_task_needs": (C.c_int, [_P, C.POINTER(Needs), _ERR]),
    "candid_task_branch": (C.c_int, [_P, _I, C.POINTER(Branch), _ERR]),
    "candid_task_report": (C.c_int, [_P, _TO, _ERR]),
    "candid_task_noise": (C.c_int, [_P, _I, _I, _I, _VIEW, _ERR]),
    "candid_task_choose": (C.c_int, [_P, _I, _VIEW, _VIEW, _INTS, _INTS, _ERR]),
    "candid_task_place": (C.c_int, [_P, _I, _I, _INTS, _INTS, _INTS, _ERR]),
    "candid_task_needs_branch": (C.c_bool, [_P, _I, _I]),
    "candid_task_contrast": (C.c_int, [_P, _I, _VIEW, _VIEW, C.c_size_t, _ERR]),
    "candid_sequence_create": (C.c_int, [_P, _I, C.POINTER(Span), C.c_size_t, C.POINTER(Tap), C.c_size_t, _TO, _ERR]),
    "candid_sequence_free": (None, [_P]),
    "candid_sequence_run": (C.c_int, [_P, C.POINTER(Run), _ERR]),
    "candid_sequence_wants": (_I, [_P, C.c_int, C.c_int, C.c_uint32, C.POINTER(C.c_uint8)]),
    "candid_sequence_reach": (C.c_int, [_P, C.c_int, _I, C.POINTER(Reach), _ERR]),
    "candid_sequence_report": (C.c_int, [_P, _TO, _ERR]),
    "candid_pass_create": (C.c_int, [_P, _TO, _ERR]),
    "candid_pass_free": (None, [_P]),
    "candid_pass_begin": (C.c_int, [_P, C.POINTER(Segment), C.c_size_t, _ERR]),
    "candid_pass_at": (C.c_int, [_P, C.c_int, _I, _VIEW, _ERR]),
    "candid_pass_logits": (C.c_int, [_P, _VIEW, _VIEW, _ERR]),
    "candid_pass_end": (C.c_int, [_P, _ERR]),
    "candid_search_create": (C.c_int, [_P, _P, C.POINTER(SearchParams), _TO, _ERR]),
    "candid_search_free": (None, [_P]),
    "candid_search_logits": (C.c_int, [_P, _VIEW, C.POINTER(Order), _ERR]),
    "candid_search_measured": (C.c_int, [_P, C.POINTER(Order), _ERR]),
    "candid_search_again": (C.c_int, [_P, _VIEW, C.POINTER(Order), _ERR]),
    "candid_search_measured_beams": (C.c_int, [_P, _INTS, C.c_size_t, _ERR]),
    "candid_search_beam": (C.c_int, [_P, _I, _INTS, _ERR]),
    "candid_search_answer": (C.c_int, [_P, _I, _INTS, C.POINTER(C.c_size_t), C.POINTER(C.c_float), _ERR]),
    "candid_search_report": (C.c_int, [_P, _TO, _ERR]),
}


@functools.lru_cache(maxsize=None)
def lib() -> C.CDLL:
    """The library with the prototypes of plugin.h.  UnsupportedError where it is older than this package."""
    found = library()
    for name, (result, arguments) in _PROTOTYPES.items():
        try:
            function = getattr(found, name)
        except AttributeError:
            raise UnsupportedError(UNSUPPORTED, f"{found._name} has no {name}: it is older than this package") from None
        function.restype, function.argtypes = result, arguments
    if found.candid_abi_version() < ABI_VERSION:
        raise UnsupportedError(UNSUPPORTED, f"{found._name} has host ABI {found.candid_abi_version()}, expected "
                                            f"{ABI_VERSION} or later")
    return found


def check(status: int, error: C.Structure) -> None:
    if status:
        raise BY_STATUS.get(status, CandidError)(status, error.message.decode("utf-8", "replace"))


def call(name: str, *arguments: Any) -> None:
    """A function whose last parameter is candid_error *; raises CandidError."""
    lib()
    _call(name, *arguments)


def _take_string(pointer: C.c_void_p) -> str:
    try:
        return C.string_at(pointer).decode()
    finally:
        lib().candid_string_free(pointer)


def _text(function: str, handle: C.c_void_p | Host, *more: Any) -> Any:
    out = C.c_void_p()
    call(function, handle, *more, C.byref(out))
    return json.loads(_take_string(out))


class Handle:
    """Owns what a create function made.  `owner` is what must outlive it."""

    _free = ""

    def __init__(self, create: str, *arguments: Any, owner: Any = None):
        self.pointer, self.owner = C.c_void_p(), owner
        call(create, *arguments, C.byref(self.pointer))

    def free(self) -> None:
        pointer, self.pointer = getattr(self, "pointer", None), C.c_void_p()
        if pointer:
            getattr(lib(), self._free)(pointer)

    def __del__(self) -> None:
        try:
            self.free()
        except (TypeError, AttributeError):    # the interpreter is going down
            pass


class Plugin(Handle):
    _free = "candid_plugin_free"

    def __init__(self, host: Host, config: Config):
        super().__init__("candid_plugin_create", C.byref(host), config._handle, owner=(host, config))
        self.n_layer = host.n_layer


def host_capabilities(host: Host, config: Config | None = None) -> dict[str, Any]:
    return _text("candid_host_capabilities", C.byref(host), config._handle if config else None)


class Task(Handle):
    """One question."""

    _free = "candid_task_free"

    def __init__(self, plugin: Plugin, request: str, n_images: int):
        super().__init__("candid_task_create", plugin.pointer, request.encode(), n_images, owner=plugin)
        self.asked_for, self.n_images = request, n_images
        self.needs = Needs()
        call("candid_task_needs", self.pointer, C.byref(self.needs))

    @property
    def request(self) -> str:
        """What to ask in place of the request, or the request."""
        return lib().candid_task_request(self.pointer).decode()

    def branch(self, number: int) -> Branch:
        out = Branch()
        call("candid_task_branch", self.pointer, number, C.byref(out))
        return out

    def branches(self) -> list[Branch]:
        return [self.branch(i) for i in range(self.needs.n_branches)]

    def needs_branch(self, number: int, n_generated: int) -> bool:
        return lib().candid_task_needs_branch(self.pointer, number, n_generated)

    def report(self) -> dict[str, Any]:
        """What contrasts did, or why they did nothing."""
        return _text("candid_task_report", self.pointer)

    def noise(self, branch: int, image: int, pixels: View) -> None:
        call("candid_task_noise", self.pointer, branch, image, 0, C.byref(pixels))

    def choose(self, branch: int, n_chosen: int, q: View, k: View) -> list[int]:
        index, n = (C.c_int32 * n_chosen)(), C.c_int32()
        call("candid_task_choose", self.pointer, branch, C.byref(q), C.byref(k), index, C.byref(n))
        return list(index[:n.value])

    def place(self, grid_h: int, grid_w: int) -> tuple[list[int], list[int], int]:
        """(cells, positions, number of positions) of an image's tokens."""
        cells, positions, n = ((C.c_int32 * (grid_h * grid_w))() for _ in range(2)), None, C.c_int32()
        cells, positions = cells
        call("candid_task_place", self.pointer, grid_h, grid_w, cells, positions, C.byref(n))
        return list(cells), list(positions), n.value

    def contrast(self, n_generated: int, main: View, branches: Seq[View | None]) -> None:
        views = (View * len(branches))()
        for i, view in enumerate(branches):
            views[i] = view if view is not None else View(n_dims=main.n_dims)
        call("candid_task_contrast", self.pointer, n_generated, C.byref(main), views, len(branches))


class Sequence(Handle):
    """One prompt with what is generated after it."""

    _free = "candid_sequence_free"

    def __init__(self, task: Task, branch: int, spans: Seq[tuple[int, int, int, int]], taps: Seq[Tap]):
        """spans: (kind, tokens, grid rows, grid columns)."""
        c_spans = (Span * max(1, len(spans)))(*(Span(kind=k, n_tokens=n, grid_h=h, grid_w=w) for k, n, h, w in spans))
        c_taps = (Tap * max(1, len(taps)))(*taps)
        super().__init__("candid_sequence_create", task.pointer, branch, c_spans, len(spans), c_taps, len(taps), owner=task)
        self.n_layer = task.owner.n_layer
        self.run = Run()
        call("candid_sequence_run", self.pointer, C.byref(self.run))

    def wants(self, role: Role, site: Site, rows: int) -> bytes:
        """One byte per layer and one more, 1 where the site must be shown."""
        layers = (C.c_uint8 * (self.n_layer + 1))()
        lib().candid_sequence_wants(self.pointer, role, site, rows, layers)
        return bytes(layers)

    def reach(self, role: Role, index: int, out: Reach) -> Reach:
        call("candid_sequence_reach", self.pointer, role, index, C.byref(out))
        return out

    def report(self) -> dict[str, Any]:
        return _text("candid_sequence_report", self.pointer)


def merged_report(*reports: dict[str, Any]) -> dict[str, Any]:
    """Reports of a sequence, its task and its search by method; active: in any of them."""
    out: dict[str, Any] = {}
    for report in reports:
        for method, entry in report.items():
            before = out.get(method, {})
            out[method] = {**before, **entry}
            if "active" in before and "active" in entry:
                out[method]["active"] = before["active"] or entry["active"]
                if out[method]["active"] and not (before["active"] and entry["active"]):
                    out[method].pop("why", None)
    return out


class Pass(Handle):
    """Forward passes, one after the other."""

    _free = "candid_pass_free"

    def __init__(self, plugin: Plugin):
        super().__init__("candid_pass_create", plugin.pointer, owner=plugin)
        self._error = Error()
        self._at, self._end = lib().candid_pass_at, lib().candid_pass_end

    def begin(self, segments: C.Array, n: int) -> None:
        check(lib().candid_pass_begin(self.pointer, segments, n, C.byref(self._error)), self._error)

    def at(self, site: int, layer: int, view: View) -> None:
        check(self._at(self.pointer, site, layer, C.byref(view), C.byref(self._error)), self._error)

    def logits(self, view: View, early: View | None) -> None:
        check(lib().candid_pass_logits(self.pointer, C.byref(view), C.byref(early) if early is not None else None,
                                       C.byref(self._error)), self._error)

    def end(self) -> None:
        check(self._end(self.pointer, C.byref(self._error)), self._error)


class Search(Handle):
    """OPERA's choice of tokens."""

    _free = "candid_search_free"

    def __init__(self, task: Task, sequence: Sequence, n_prompt_ids: int, max_new_tokens: int, ends: Seq[int]):
        params = SearchParams(n_prompt_ids=n_prompt_ids, max_new_tokens=max_new_tokens, n_end_tokens=len(ends),
                              end_tokens=(C.c_int32 * max(1, len(ends)))(*ends))
        super().__init__("candid_search_create", task.pointer, sequence.pointer, C.byref(params), owner=(task, sequence))
        self.max_new_tokens, self.order = max_new_tokens, Order()

    def logits(self, view: View) -> Order:
        call("candid_search_logits", self.pointer, C.byref(view), C.byref(self.order))
        return self.order

    def measured(self) -> Order:
        call("candid_search_measured", self.pointer, C.byref(self.order))
        return self.order

    def again(self, view: View) -> Order:
        call("candid_search_again", self.pointer, C.byref(view), C.byref(self.order))
        return self.order

    def measured_beams(self, beams: Seq[int]) -> None:
        call("candid_search_measured_beams", self.pointer, (C.c_int32 * len(beams))(*beams), len(beams))

    def beam(self, number: int, n_tokens: int) -> list[int]:
        ids = (C.c_int32 * max(1, n_tokens))()
        call("candid_search_beam", self.pointer, number, ids)
        return list(ids[:n_tokens])

    def answer(self, rank: int) -> tuple[list[int], float]:
        ids, n, score = (C.c_int32 * self.max_new_tokens)(), C.c_size_t(), C.c_float()
        call("candid_search_answer", self.pointer, rank, ids, C.byref(n), C.byref(score))
        return list(ids[:n.value]), score.value

    def report(self) -> dict[str, Any]:
        return _text("candid_search_report", self.pointer)
