"""The C interface of libcandid (include/candid/candid.h), declared once.

Structs and their fields bear the names of the header; tests/test_abi.py compares every size and offset with it.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_bool, c_char, c_char_p, c_double, c_float, c_int, c_int32, c_int64, c_size_t, c_uint8
from ctypes import c_uint32, c_uint64, c_void_p
from typing import Any, TypeVar

OK = 0
CANCELLED = 7

PRECISIONS = {"fast": 0, "exact": 1}
PREPROCESS = {"auto": 0, "pad": 1, "crop": 2, "anyres": 3}
FEATURES = {"projected": 0, "encoder": 1}
FINISH = ("eos", "stop", "length", "cancelled")
LOG_LEVELS = ("debug", "info", "warning")

LOG_FN = ctypes.CFUNCTYPE(None, c_void_p, c_int, c_char_p)
TEXT_FN = ctypes.CFUNCTYPE(c_bool, c_void_p, POINTER(c_char), c_size_t)
CANCEL_FN = ctypes.CFUNCTYPE(c_bool, c_void_p)


class candid_error(ctypes.Structure):
    _fields_ = [("status", c_int), ("message", c_char * 512)]


class candid_model_params(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("mmproj_path", c_char_p),
        ("precision", c_int),
        ("n_threads", c_int),
        ("log", LOG_FN),
        ("log_user_data", c_void_p),
    ]


class candid_model_info(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("name", c_char_p),
        ("backend", c_char_p),
        ("has_vision", c_bool),
        ("n_layer", c_int),
        ("n_head", c_int),
        ("n_head_kv", c_int),
        ("n_embd", c_int),
        ("n_vocab", c_int),
        ("n_ctx_train", c_int),
        ("image_size", c_int),
        ("image_tokens", c_int),
        ("file_bytes", c_uint64),
        ("conversation", c_char_p),
        ("n_vision_blocks", c_int),
    ]


class candid_context_params(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("n_ctx", c_int), ("kv_type", c_int)]


class candid_generate_params(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("max_new_tokens", c_int),
        ("temperature", c_float),
        ("top_k", c_int),
        ("top_p", c_float),
        ("repetition_penalty", c_float),
        ("seed", c_uint64),
        ("preprocess", c_int),
        ("conversation", c_char_p),
        ("stop", POINTER(c_char_p)),
        ("n_stop", c_size_t),
        ("on_text", TEXT_FN),
        ("on_text_user_data", c_void_p),
        ("should_cancel", CANCEL_FN),
        ("should_cancel_user_data", c_void_p),
        ("config", c_void_p),
    ]


class candid_stats(ctypes.Structure):
    _fields_ = [
        ("load_ms", c_double),
        ("encode_ms", c_double),
        ("prefill_ms", c_double),
        ("decode_ms", c_double),
        ("n_prompt", c_int),
        ("n_generated", c_int),
        ("decode_bytes", c_double),
        ("fingerprint", c_uint32),
    ]


class candid_answer(ctypes.Structure):
    _fields_ = [
        ("text", c_char_p),
        ("tokens", POINTER(c_int32)),
        ("n_tokens", c_size_t),
        ("finish", c_int),
        ("score", c_float),
    ]


class candid_result(ctypes.Structure):
    _fields_ = [
        ("text", c_char_p),
        ("tokens", POINTER(c_int32)),
        ("n_tokens", c_size_t),
        ("finish", c_int),
        ("stats", candid_stats),
        ("interventions", c_char_p),
        ("answers", POINTER(candid_answer)),
        ("n_answers", c_size_t),
    ]


class candid_request(ctypes.Structure):
    _fields_ = [("images", POINTER(c_void_p)), ("n_images", c_size_t), ("prompt", c_char_p)]


class candid_sharing(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("n_prompt", c_int64),
        ("n_prefilled", c_int64),
        ("n_images", c_int64),
        ("n_encoded", c_int64),
        ("load_ms", c_double),
        ("encode_ms", c_double),
        ("prefill_ms", c_double),
        ("decode_ms", c_double),
        ("why_not", c_char * 200),
    ]


class candid_attention(ctypes.Structure):
    _fields_ = [
        ("n_tokens", c_size_t),
        ("n_layer", c_int),
        ("grid_h", c_int),
        ("grid_w", c_int),
        ("values", POINTER(c_float)),
        ("text", c_char_p),
        ("token_end", POINTER(c_size_t)),
    ]


STRUCTS: tuple[type[ctypes.Structure], ...] = (
    candid_error,
    candid_model_params,
    candid_model_info,
    candid_context_params,
    candid_generate_params,
    candid_stats,
    candid_answer,
    candid_result,
    candid_request,
    candid_sharing,
    candid_attention,
)

Params = TypeVar("Params", candid_model_params, candid_context_params, candid_generate_params)


def defaults(kind: type[Params]) -> Params:
    """A parameter struct as the header's ``*_default`` function fills it."""
    params = kind()
    params.struct_size = ctypes.sizeof(kind)
    if isinstance(params, candid_generate_params):
        params.top_p = params.repetition_penalty = 1.0
    return params


_error = POINTER(candid_error)
_handle = c_void_p  # of a model, a context, an image, a configuration
_out = POINTER(c_void_p)
_handles = POINTER(c_void_p)
_params = POINTER(candid_generate_params)
_result = POINTER(candid_result)
_attention = POINTER(candid_attention)

FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "candid_version": (c_char_p, []),
    "candid_status_name": (c_char_p, [c_int]),
    "candid_model_open": (c_int, [c_char_p, POINTER(candid_model_params), _out, _error]),
    "candid_model_free": (None, [_handle]),
    "candid_model_get_info": (c_int, [_handle, POINTER(candid_model_info), _error]),
    "candid_image_load": (c_int, [c_char_p, _out, _error]),
    "candid_image_load_memory": (c_int, [c_void_p, c_size_t, c_char_p, _out, _error]),
    "candid_image_from_rgb": (c_int, [c_void_p, c_int, c_int, c_size_t, _out, _error]),
    "candid_image_width": (c_int, [_handle]),
    "candid_image_height": (c_int, [_handle]),
    "candid_image_pixels": (POINTER(c_uint8), [_handle]),
    "candid_image_free": (None, [_handle]),
    "candid_context_create": (c_int, [_handle, POINTER(candid_context_params), _out, _error]),
    "candid_context_free": (None, [_handle]),
    "candid_config_load": (c_int, [c_char_p, _out, _error]),
    "candid_config_parse": (c_int, [c_char_p, c_size_t, c_char_p, _out, _error]),
    "candid_config_set": (c_int, [_handle, c_char_p, _error]),
    "candid_config_free": (None, [_handle]),
    "candid_config_schema": (c_int, [_out, _error]),
    "candid_string_free": (None, [c_void_p]),
    "candid_cancel_when_set": (c_bool, [c_void_p]),
    "candid_generate": (c_int, [_handle, _handles, c_size_t, c_char_p, _params, POINTER(_result), _error]),
    "candid_result_free": (None, [_result]),
    "candid_generate_many": (
        c_int,
        [_handle, POINTER(candid_request), c_size_t, _params, POINTER(candid_sharing), POINTER(_result), _error],
    ),
    "candid_encode_image": (
        c_int,
        [_handle, _handle, c_int, _params, c_void_p, c_size_t, POINTER(c_int), POINTER(c_int), _error],
    ),
    "candid_attention_of": (
        c_int,
        [_handle, _handles, c_size_t, c_size_t, c_char_p, _params, c_void_p, c_size_t, POINTER(_attention), _error],
    ),
    "candid_attention_free": (None, [_attention]),
    "candid_image_overlay": (c_int, [_handle, _handle, c_void_p, c_float, _params, _out, _error]),
}


def declare(library: ctypes.CDLL) -> None:
    """Gives the functions of a loaded library their types. AttributeError: it lacks one."""
    for name, (result, arguments) in FUNCTIONS.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
