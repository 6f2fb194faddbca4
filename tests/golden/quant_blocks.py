#!/usr/bin/env python3
"""Writes quant_blocks.bin: two random blocks of each quantised type and their values as gguf-py decodes them.

Needs the packages gguf (0.19 was used) and numpy. Layout, for Q4_0, Q8_0, Q4_K, Q5_K, Q6_K in this order: two blocks as
in a GGUF file, then their values as little-endian f32. Read by tests/unit/test_quant.c.
"""
import pathlib

import gguf
import numpy as np

rng = np.random.default_rng(20240501)
out = b""
for name, halves in (("Q4_0", [0]), ("Q8_0", [0]), ("Q4_K", [0, 2]), ("Q5_K", [0, 2]), ("Q6_K", [208])):
    kind = gguf.GGMLQuantizationType[name]
    _, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (2, size), dtype=np.uint8)
    for at in halves:                                     # finite scales of ordinary size
        scale = rng.normal(0, 0.01, 2).astype(np.float16)
        blocks[:, at:at + 2] = scale.view(np.uint8).reshape(2, 2)
    values = gguf.quants.dequantize(blocks, kind).astype("<f4")
    out += blocks.tobytes() + values.tobytes()
pathlib.Path(__file__).with_suffix(".bin").write_bytes(out)
