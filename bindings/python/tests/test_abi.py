"""_abi.py says what candid.h says."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import tempfile
from pathlib import Path

import candid
from candid import _abi

from .common import ROOT, Case

HEADER = ROOT / "include" / "candid" / "candid.h"


def measured() -> dict[str, int]:
    """Sizes and offsets as a C compiler sees them: {"struct": size, "struct.field": offset, "struct.field+": size}."""
    lines = ["#include <stddef.h>", "#include <stdio.h>", "#include <candid/candid.h>", "int main(void) {"]
    for struct in _abi.STRUCTS:
        name = struct.__name__
        lines.append(f'printf("{name} %zu\\n", sizeof({name}));')
        for field, *_ in struct._fields_:
            lines.append(f'printf("{name}.{field} %zu\\n", offsetof({name}, {field}));')
            lines.append(f'printf("{name}.{field}+ %zu\\n", sizeof((({name} *)0)->{field}));')
    lines.append("return 0; }")
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder, "sizes.c"), Path(folder, "sizes")
        source.write_text("\n".join(lines))
        compiler = os.environ.get("CC", "cc")
        subprocess.run([compiler, f"-I{ROOT / 'include'}", str(source), "-o", str(program)], check=True)
        out = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout
    return {name: int(value) for name, value in (line.split() for line in out.splitlines())}


class Abi(Case):
    def test_structs(self) -> None:
        declared = {}
        for struct in _abi.STRUCTS:
            declared[struct.__name__] = ctypes.sizeof(struct)
            for field, *_ in struct._fields_:
                declared[f"{struct.__name__}.{field}"] = getattr(struct, field).offset
                declared[f"{struct.__name__}.{field}+"] = getattr(struct, field).size
        self.assertEqual(declared, measured())

    def test_every_struct_and_function_of_the_header(self) -> None:
        text = HEADER.read_text()
        structs = set(re.findall(r"^typedef struct (\w+) \{", text, re.MULTILINE))
        self.assertEqual(structs, {s.__name__ for s in _abi.STRUCTS})
        functions = set(re.findall(r"^CANDID_API [^;(]*?\b(candid_\w+)\(", text, re.MULTILINE))
        self.assertEqual(functions - {"candid_model_open_memory"}, set(_abi.FUNCTIONS))  # files are mapped anyway

    def test_arguments(self) -> None:
        text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.DOTALL)
        for name, arguments in re.findall(r"^CANDID_API [^;(]*?\b(candid_\w+)\(([^;]*)\);", text, re.MULTILINE):
            if name in _abi.FUNCTIONS:
                expected = [] if arguments.strip() == "void" else arguments.split(",")
                self.assertEqual(len(_abi.FUNCTIONS[name][1]), len(expected), name)
                for kind, argument in zip(_abi.FUNCTIONS[name][1], expected):
                    pointer = "*" in argument
                    by_address = kind in (ctypes.c_void_p, ctypes.c_char_p) or hasattr(kind, "contents")
                    self.assertEqual(pointer, by_address, f"{name}: {argument}")
                    if not pointer:
                        size = {"size_t": 8, "float": 4}.get(argument.split()[0], 4)
                        self.assertEqual(ctypes.sizeof(kind), size, f"{name}: {argument}")

    def test_enums(self) -> None:
        values = {k: int(v) for k, v in re.findall(r"\b(CANDID_[A-Z_]+) = (\d+)", HEADER.read_text())}
        for prefix, table in [
            ("PRECISION", _abi.PRECISIONS),
            ("PREPROCESS", _abi.PREPROCESS),
            ("FEATURES", _abi.FEATURES),
            ("FINISH", {name: i for i, name in enumerate(_abi.FINISH)}),
        ]:
            named = {k: v for k, v in values.items() if k.startswith(f"CANDID_{prefix}_")}
            self.assertEqual(named, {f"CANDID_{prefix}_{k.upper()}": v for k, v in table.items()})
        errors = {v for k, v in values.items() if k.startswith("CANDID_ERROR_")}
        self.assertEqual(errors, set(candid.errors.BY_STATUS))
        self.assertEqual(values["CANDID_ERROR_CANCELLED"], _abi.CANCELLED)

    def test_version(self) -> None:
        self.assertEqual(candid.version(), candid.__version__)
        project = Path(__file__).parents[1].joinpath("pyproject.toml").read_text()
        self.assertIn(f'\nversion = "{candid.__version__}"\n', project)
