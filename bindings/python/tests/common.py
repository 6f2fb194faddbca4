"""What the tests share."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import textwrap
import unittest
from pathlib import Path

import candid

ROOT = Path(__file__).resolve().parents[3]
ZOO = ROOT / "examples" / "zoo_4.png"
PARK = ROOT / "examples" / "park_28.png"
STREET = ROOT / "examples" / "street_31.png"
DOG = "Is there a dog in the image?"


@functools.lru_cache(maxsize=None)
def model(precision: str = "fast") -> candid.Model:
    return candid.Model.demo(precision=precision, threads=1)


def run_python(code: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a process of its own, which must end well and say nothing on standard error."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **more},
        capture_output=True,
        text=True,
        timeout=600,
    )
    if done.returncode != 0 or done.stderr:
        raise AssertionError(f"exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


class Case(unittest.TestCase):
    maxDiff = None
