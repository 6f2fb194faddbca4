"""Finds and loads libcandid, and turns its statuses into exceptions."""

from __future__ import annotations

import ctypes
import functools
import operator
import os
from pathlib import Path
from typing import Any

from . import _abi
from .errors import BY_STATUS, CandidError, argument_error


def library_path() -> Path:
    """What ``CANDID_LIBRARY`` names, else the library that was installed with the package."""
    named = os.environ.get("CANDID_LIBRARY")
    return Path(named) if named else Path(__file__).with_name("libcandid.so")


@functools.lru_cache(maxsize=None)
def library() -> ctypes.CDLL:
    """The loaded library. Its symbols stay its own (RTLD_LOCAL)."""
    path = library_path()
    if not path.exists():
        raise ImportError(
            f"{path}: no such file; install the package (pip install ./bindings/python) or let the environment "
            "variable CANDID_LIBRARY name a libcandid.so"
        )
    loaded = ctypes.CDLL(str(path), mode=ctypes.RTLD_LOCAL)
    try:
        _abi.declare(loaded)
    except AttributeError as e:
        raise ImportError(f"{path} is not the libcandid that this package was written for: {e}") from None
    return loaded


def call(name: str, *arguments: Any) -> None:
    """Calls a function that returns a status and takes a candid_error last; raises what it reports."""
    error = _abi.candid_error()
    status = getattr(library(), name)(*arguments, ctypes.byref(error))
    if status != _abi.OK:
        message = error.message.decode("utf-8", "replace")
        raise BY_STATUS.get(status, CandidError)(status, message)


def to_bytes(text: str, what: str) -> bytes:
    """UTF-8 for C, which would take a NUL for the end."""
    if not isinstance(text, str):
        raise TypeError(f"{what}: expected str, found {type(text).__name__}")
    if "\0" in text:
        raise argument_error(f"{what}: a NUL character is not allowed")
    return text.encode("utf-8", "surrogateescape")


def to_path(path: str | os.PathLike[str], what: str) -> bytes:
    data = os.fsencode(path)
    if b"\0" in data:
        raise argument_error(f"{what}: a NUL character is not allowed")
    return data


def to_int(value: int, what: str, low: int, high: int) -> int:
    """ctypes cuts numbers that do not fit; here they are an error."""
    number = operator.index(value)
    if not low <= number <= high:
        raise argument_error(f"{what}: expected {low} to {high}, found {number}")
    return number


def choice(table: dict[str, int], value: str, what: str) -> int:
    if value not in table:
        raise argument_error(f"{what}: expected {', '.join(table)}, found {value!r}")
    return table[value]


def version() -> str:
    """The version of the loaded library."""
    return str(library().candid_version(), "utf-8")
