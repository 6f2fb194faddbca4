"""Random quantised blocks with zero mean and a given standard deviation, as (count, bytes) uint8 arrays."""
import numpy as np

from gguf_writer import BLOCK


def _half(x):
    """float array of n numbers -> (n, 2) bytes of IEEE halves."""
    return np.asarray(x, np.float16).reshape(-1, 1).view(np.uint8)


def _spread(rng, count, scale):
    """Block scales within +-25 % of `scale`, of random sign so that the lopsided ranges average out."""
    return scale * rng.uniform(0.75, 1.25, count) * rng.choice((-1.0, 1.0), count)


def _pack_scales(sc, m):
    """Eight 6-bit scales and eight 6-bit minima per block -> the 12 bytes of Q4_K and Q5_K."""
    low = sc[:, :4] | (sc[:, 4:] >> 4) << 6
    mid = m[:, :4] | (m[:, 4:] >> 4) << 6
    high = (sc[:, 4:] & 15) | (m[:, 4:] & 15) << 4
    return np.concatenate([low, mid, high], axis=1)


def _k_quant(rng, raw, std, levels):
    """Q4_K and Q5_K: value = d*sc*q - dmin*m; with m = sc and dmin = d*(levels-1)/2 the mean is zero."""
    count = len(raw)
    sc = rng.integers(24, 64, (count, 8), np.uint8)
    rms = np.sqrt((np.arange(24, 64) ** 2).mean()) * np.sqrt((levels ** 2 - 1) / 12)
    d = _spread(rng, count, std / rms).astype(np.float16).astype(np.float32)
    raw[:, 0:2], raw[:, 2:4] = _half(d), _half(d * ((levels - 1) / 2))
    raw[:, 4:16] = _pack_scales(sc, sc)


def random_blocks(rng, kind, count, std):
    """`count` blocks of type `kind`; for f16 a block is one number."""
    if kind == "f16":
        return _half(rng.standard_normal(count, np.float32) * np.float32(std))
    raw = np.frombuffer(bytearray(rng.bytes(count * BLOCK[kind][1])), np.uint8).reshape(count, -1)
    if kind == "q4_0":                      # (n - 8) * d, n uniform in 0..15
        raw[:, 0:2] = _half(_spread(rng, count, std / 4.64))
    elif kind == "q8_0":                    # d * q, q uniform; -128 is a value quantisers never write
        q = raw[:, 2:].view(np.int8)
        np.maximum(q, -127, out=q)
        raw[:, 0:2] = _half(_spread(rng, count, std / 73.9))
    elif kind == "q4_k":
        _k_quant(rng, raw, std, 16)
    elif kind == "q5_k":
        _k_quant(rng, raw, std, 32)
    elif kind == "q6_k":                    # d * sc * (q - 32), sc signed
        sc = rng.integers(64, 128, (count, 16), np.int8) * rng.choice(np.array((-1, 1), np.int8), (count, 16))
        raw[:, 192:208] = sc.view(np.uint8)
        raw[:, 208:210] = _half(_spread(rng, count, std / (18.5 * 97.5)))
    else:
        raise ValueError(kind)
    return raw
