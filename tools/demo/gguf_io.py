"""Minimal GGUF v3 writer and reader: what the demo model needs, nothing more."""
import os
import struct

import numpy as np

U32, I32, F32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
PACK = {U32: "<I", I32: "<i", F32: "<f", BOOL: "<?"}
DTYPES = {0: np.dtype("<f4"), 1: np.dtype("<f2")}
ALIGN = 32


def _string(s):
    b = s.encode()
    return struct.pack("<Q", len(b)) + b


def _value(kind, v):
    if kind == STRING:
        return _string(v)
    if kind == ARRAY:
        inner, items = v
        return struct.pack("<iQ", inner, len(items)) + b"".join(_value(inner, x) for x in items)
    return struct.pack(PACK[kind], v)


def write(path, keys, tensors):
    """keys: name -> (type, value); an array's value is (element type, list).  tensors: name -> array
    (float32 or float16, C order; the last axis becomes ne[0]).  The file appears atomically."""
    head = b"GGUF" + struct.pack("<Iqq", 3, len(tensors), len(keys))
    for name, (kind, v) in keys.items():
        head += _string(name) + struct.pack("<i", kind) + _value(kind, v)
    offset, blobs = 0, []
    for name, a in tensors.items():
        a = np.ascontiguousarray(a)
        kind = next(k for k, d in DTYPES.items() if d == a.dtype)
        head += _string(name) + struct.pack("<I", a.ndim) + struct.pack(f"<{a.ndim}q", *a.shape[::-1])
        head += struct.pack("<iQ", kind, offset)
        blob = a.tobytes()
        blob += b"\0" * (-len(blob) % ALIGN)
        offset += len(blob)
        blobs.append(blob)
    head += b"\0" * (-len(head) % ALIGN)
    with open(path + ".tmp", "wb") as f:
        f.write(head)
        f.writelines(blobs)
    os.replace(path + ".tmp", path)


class _Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, fmt):
        v = struct.unpack_from(fmt, self.data, self.at)
        self.at += struct.calcsize(fmt)
        return v if len(v) > 1 else v[0]

    def string(self):
        n = self.take("<Q")
        self.at += n
        return self.data[self.at - n:self.at].decode()

    def value(self, kind):
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            inner, n = self.take("<iQ")
            return [self.value(inner) for _ in range(n)]
        return self.take(PACK[kind])


def read(path):
    """(keys: name -> value, tensors: name -> array)."""
    with open(path, "rb") as f:
        r = _Reader(f.read())
    if r.data[:4] != b"GGUF":
        raise ValueError("not a GGUF file")
    r.at = 4
    _, n_tensors, n_keys = r.take("<Iqq")
    keys = {}
    for _ in range(n_keys):
        name = r.string()
        keys[name] = r.value(r.take("<i"))
    infos = []
    for _ in range(n_tensors):
        name, n = r.string(), r.take("<I")
        shape = [r.take("<q") for _ in range(n)][::-1]
        infos.append((name, shape, *r.take("<iQ")))
    base = -(-r.at // ALIGN) * ALIGN
    tensors = {}
    for name, shape, kind, offset in infos:
        tensors[name] = np.frombuffer(r.data, DTYPES[kind], int(np.prod(shape)), base + offset).reshape(shape)
    return keys, tensors
