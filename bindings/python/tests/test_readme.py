"""Every piece of Python in README.md runs, in order, as one program; so do examples/python_host.py and other pages' code."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from .common import PARK, ROOT, ZOO, Case

README = ROOT / "bindings" / "python" / "README.md"


class Documentation(Case):
    def run_program(self, folder: str, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=folder, env={**os.environ}, capture_output=True, text=True, timeout=600
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        return done.stdout

    def test_readme(self) -> None:
        pieces = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
        self.assertGreater(len(pieces), 5)
        self.assertLessEqual(len(pieces[0].splitlines()), 10)
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(ZOO, Path(folder, "photo.png"))
            shutil.copy(PARK, Path(folder, "other.png"))
            shutil.copy(ROOT / "configs" / "vhr.json", folder)
            program = Path(folder, "readme.py")
            program.write_text("\n".join(pieces))
            out = self.run_program(folder, str(program))
            self.assertEqual(Path(folder, "looked.png").read_bytes()[:8], b"\x89PNG\r\n\x1a\n")
        self.assertTrue(out.startswith("The image shows a zoo scene"), out)
        self.assertIn('key vhrr: there is no such method; did you mean "vhr"?', out)
        self.assertRegex(out, r"\(\d+, 6, 8, 8\) \(\d+, 8, 8\)")

    def test_other_pages(self) -> None:
        for page in (ROOT / "README.md", ROOT / "docs" / "hosts.md"):
            pieces = re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
            pieces = [piece for piece in pieces if "candid.hf" not in piece]  # those need transformers
            self.assertEqual(len(pieces), 1, page)
            with tempfile.TemporaryDirectory() as folder:
                shutil.copy(ZOO, Path(folder, "photo.png"))
                shutil.copy(PARK, Path(folder, "a.png"))
                Path(folder, "page.py").write_text(pieces[0])
                self.assertTrue(self.run_program(folder, "page.py").startswith("The image shows a zoo scene"), page)

    def test_host(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            host = str(ROOT / "examples" / "python_host.py")
            out = self.run_program(folder, host, str(ZOO), "--word", "bird", "--out", "looked.png")
            self.assertIn("The image shows a zoo scene", out)
            for method in ("none", "vhr", "pai", "vcd"):
                self.assertRegex(out, rf"(?m)^{method} ")
            self.assertEqual(Path(folder, "looked.png").read_bytes()[:8], b"\x89PNG\r\n\x1a\n")
