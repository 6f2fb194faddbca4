"""Configurations: which mitigation methods are on, and every option's value (docs/config.md)."""

from __future__ import annotations

import ctypes
import json
import os
from typing import Any, Mapping, Union

from ._library import call, library, to_bytes, to_path

#: A dictionary, JSON text (it begins with "{"), the name of a JSON file, or a :class:`Config`.
ConfigLike = Union[str, "os.PathLike[str]", Mapping[str, Any], "Config"]


class Config:
    """A checked configuration. It never changes: any number of threads may use it.

    Calls take whatever ``Config`` takes; what is made a ``Config`` first is read and checked once.

    Parameters
    ----------
    source : ConfigLike, optional
        ``{"vhr": True, "pai": {"alpha": 0.2}}``, the same as JSON text, or the name of a JSON file. File names inside a
        file are relative to it, others to the current directory.
    *assignments : str
        Changes, as the program's ``--set`` takes them: ``"pai.alpha=0.3"``, ``"vhr=false"``.

    Raises
    ------
    FormatError
        A key or a value is wrong; the message names it, what was expected and what was found.
    FileError
        The file cannot be read.
    """

    def __init__(self, source: ConfigLike | None = None, *assignments: str) -> None:
        self._handle = ctypes.c_void_p()
        self._shared: Config | None = None
        if isinstance(source, Config):
            if assignments:
                raise TypeError("a Config does not change: give its source and the assignments to a new one")
            self._shared = source
            self._handle = source._handle
            return
        if isinstance(source, Mapping) or source is None:
            self._parse(json.dumps(dict(source or {}), allow_nan=False))
        elif isinstance(source, str) and source.lstrip().startswith("{"):
            self._parse(source)
        elif isinstance(source, (str, os.PathLike)):
            call("candid_config_load", to_path(source, "config"), ctypes.byref(self._handle))
        else:
            raise TypeError(f"config: expected a dict, JSON text, a path or a Config, found {type(source).__name__}")
        for assignment in assignments:
            call("candid_config_set", self._handle, to_bytes(assignment, "assignment"))

    def _parse(self, text: str) -> None:
        data = text.encode("utf-8", "surrogateescape")
        call("candid_config_parse", data, len(data), None, ctypes.byref(self._handle))

    def __del__(self) -> None:
        if getattr(self, "_handle", None) and self._shared is None:
            library().candid_config_free(self._handle)
            self._handle = ctypes.c_void_p()


def schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of configurations."""
    text = ctypes.c_void_p()
    call("candid_config_schema", ctypes.byref(text))
    try:
        parsed: dict[str, Any] = json.loads(ctypes.string_at(text.value or 0))
        return parsed
    finally:
        library().candid_string_free(text)


def methods() -> dict[str, dict[str, Any]]:
    """The mitigation methods by their names in configurations.

    Returns
    -------
    dict
        For each method ``title``, ``description`` (what it edits) and ``options``: by name the JSON schema of the
        option with ``description`` and ``default``.
    """
    return {
        name: {
            "title": entry["title"],
            "description": entry["description"],
            "options": entry.get("properties", {}),
        }
        for name, entry in schema()["properties"].items()
        if entry.get("type") == ["boolean", "object"] and name != "decode"
    }
