"""A small GGUF v3 writer: typed keys, then tensors whose bytes come from generators."""
import os
import pathlib
import struct

import numpy as np

ALIGN = 32
TYPE_ID = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 8, "q4_k": 12, "q5_k": 13, "q6_k": 14}
# type -> (weights per block, bytes per block)
BLOCK = {"f32": (1, 4), "f16": (1, 2), "q4_0": (32, 18), "q8_0": (32, 34),
         "q4_k": (256, 144), "q5_k": (256, 176), "q6_k": (256, 210)}


def blocks_of(kind, weights):
    per = BLOCK[kind][0]
    assert weights % per == 0, (kind, weights)
    return weights // per


def _string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(v):
    """Return (type id, encoded bytes) of one key's value."""
    if isinstance(v, bool):
        return 7, struct.pack("<?", v)
    if isinstance(v, int):
        return 4, struct.pack("<I", v)
    if isinstance(v, float):
        return 6, struct.pack("<f", v)
    if isinstance(v, str):
        return 8, _string(v)
    if isinstance(v, list):
        if isinstance(v[0], str):
            kind, body = 8, b"".join(map(_string, v))
        elif isinstance(v[0], int):
            kind, body = 5, np.array(v, "<i4").tobytes()
        else:
            kind, body = 6, np.array(v, "<f4").tobytes()
        return 9, struct.pack("<IQ", kind, len(v)) + body
    raise TypeError(f"no GGUF type for {v!r}")


def _pad(n):
    return -n % ALIGN


class Writer:
    """Collects keys and tensors; `close` writes the file in one pass, under its final name only when whole."""

    def __init__(self, path):
        self.path, self.keyvals, self.tensors = pathlib.Path(path), [], []

    def keys(self, mapping):
        for key, v in mapping.items():
            kind, body = _value(v)
            self.keyvals.append(_string(key) + struct.pack("<I", kind) + body)

    def tensor(self, name, kind, shape, chunks):
        """`shape` is in GGML order, fastest dimension first; `chunks()` yields the tensor's bytes."""
        size = blocks_of(kind, int(np.prod(shape))) * BLOCK[kind][1]
        self.tensors.append((name, kind, shape, size, chunks))

    def constant(self, name, n, x):
        """A float32 vector of n equal numbers."""
        self.tensor(name, "f32", (n,), lambda: [np.full(n, x, np.float32).data])

    def close(self):
        part = self.path.with_suffix(".part")
        with open(part, "wb") as f:
            f.write(b"GGUF" + struct.pack("<IQQ", 3, len(self.tensors), len(self.keyvals)))
            f.write(b"".join(self.keyvals))
            offset = 0
            for name, kind, shape, size, _ in self.tensors:
                f.write(_string(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
                        + struct.pack("<IQ", TYPE_ID[kind], offset))
                offset += size + _pad(size)
            f.write(bytes(_pad(f.tell())))
            for name, _, _, size, chunks in self.tensors:
                start = f.tell()
                for chunk in chunks():
                    f.write(chunk)
                assert f.tell() - start == size, name
                f.write(bytes(_pad(size)))
        os.replace(part, self.path)
        return self.path
