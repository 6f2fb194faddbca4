#!/usr/bin/env python3
"""Write LLaVA-shaped GGUF files with random weights, for timing.

Shapes, types, names and metadata are those of a LLaVA-1.5 language model and of its legacy
`mmproj` file; the numbers are noise of the right scale, so activations and logits stay finite
and ordinary.  llama.cpp and candid both load the result.  Needs numpy only.

    random_llava.py OUT_DIR [--size 7b|1b|tiny] [--type q4_0|q8_0|q4_k|q5_k|q6_k|f16]
                    [--only lm|mmproj] [--single] [--seed N]

Writes OUT_DIR/llava-SIZE-TYPE.gguf and OUT_DIR/mmproj-SIZE-f16.gguf, or with --single one file
OUT_DIR/llava-SIZE-TYPE-single.gguf that holds both (candid reads that form; llama.cpp does not).

Speed: drawing seven billion numbers would take minutes.  One pool of random quantised blocks is
drawn per (type, row length) and every tensor is a window into it, starting at a random block and
wrapping around.  The pool's length is a prime number of blocks, so no two rows of a tensor are
alike.
"""
import argparse
import pathlib
import zlib

import numpy as np

from gguf_writer import Writer, blocks_of
from random_blocks import random_blocks

SIZES = {
    "7b":   dict(d=4096, ff=11008, layers=32, heads=32, vocab=32064, image=336, vd=1024, vff=4096, vlayers=23, vheads=16),
    "1b":   dict(d=2048, ff=5632, layers=22, heads=32, vocab=32064, image=336, vd=1024, vff=4096, vlayers=23, vheads=16),
    "tiny": dict(d=256, ff=768, layers=4, heads=8, vocab=512, image=112, vd=128, vff=512, vlayers=3, vheads=4),
}
PATCH = 14
TYPES = ("q4_0", "q8_0", "q4_k", "q5_k", "q6_k", "f16")
FILE_TYPE = {"f16": 1, "q4_0": 2, "q8_0": 7, "q4_k": 14, "q5_k": 16, "q6_k": 18}
POOL_BLOCKS = {"f16": 16_777_213, "small": 999_983, "k": 131_071}   # primes: about 15 to 35 MB each


class Noise:
    """Random matrices as bytes, cut out of one pool per (type, row length)."""

    def __init__(self, seed):
        self.seed, self.pools = seed, {}
        self.rng = np.random.default_rng(seed)

    def _pool(self, kind, cols):
        if (kind, cols) not in self.pools:
            count = POOL_BLOCKS.get(kind, POOL_BLOCKS["k" if kind.endswith("_k") else "small"])
            rng = np.random.default_rng([self.seed, zlib.crc32(kind.encode()), cols])
            self.pools[kind, cols] = random_blocks(rng, kind, count, std=1 / np.sqrt(cols))
        return self.pools[kind, cols]

    def matrix(self, kind, cols, rows):
        """Return an iterator over byte chunks of `rows` rows of `cols` weights, deviation 1/sqrt(cols)."""
        pool = self._pool(kind, cols)
        left, at = blocks_of(kind, rows * cols), int(self.rng.integers(len(pool)))
        while left:
            part = pool[at:at + left]
            yield part.data
            left, at = left - len(part), 0


def vocabulary(n):
    """A LLaMA-like SentencePiece vocabulary of n entries: (tokens, scores, types)."""
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)]
    types = [2, 3, 3] + [6] * 256
    letters = list("\u2581etaoinshrdlucmfwypvbgkqjxz.,:?!'0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    words = letters + [a + b for a in letters for b in letters]
    words += [a + b + c for a in letters[:33] for b in letters[:33] for c in letters[:33]]
    plain = min(n, 32000) - len(tokens)
    tokens += words[:plain]
    types += [1] * plain
    scores = [0.0] * 259 + [-float(i) for i in range(plain)]
    if n > 32000:                                          # llava-hf: image placeholder, pad, padding rows
        extra = ["<image>", "<pad>"] + [f"[PAD{i}]" for i in range(32002, n)]
        tokens, scores, types = tokens + extra, scores + [0.0] * len(extra), types + [3, 3] + [5] * (n - 32002)
    return tokens, scores, types


def add_language_model(w, noise, size, kind):
    """Keys and tensors of the LLaMA part."""
    s = SIZES[size]
    d, ff, layers, heads, vocab = s["d"], s["ff"], s["layers"], s["heads"], s["vocab"]
    tokens, scores, types = vocabulary(vocab)
    w.keys({
        "general.architecture": "llama", "general.name": f"random LLaVA {size}", "general.file_type": FILE_TYPE[kind],
        "llama.context_length": 4096, "llama.embedding_length": d, "llama.block_count": layers,
        "llama.feed_forward_length": ff, "llama.attention.head_count": heads, "llama.attention.head_count_kv": heads,
        "llama.rope.dimension_count": d // heads, "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 10000.0, "llama.vocab_size": vocab, "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.scores": scores, "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_eos_token": False})

    def matrix(name, cols, rows, kind=kind):
        w.tensor(name, kind, (cols, rows), lambda: noise.matrix(kind, cols, rows))

    # Quantisers keep the head of a K-quantised model in Q6_K.
    head = "q6_k" if kind in ("q4_k", "q5_k") else kind
    matrix("token_embd.weight", d, vocab)
    for i in range(layers):
        b = f"blk.{i}."
        w.constant(b + "attn_norm.weight", d, 1)
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(b + name + ".weight", d, d)
        w.constant(b + "ffn_norm.weight", d, 1)
        matrix(b + "ffn_gate.weight", d, ff)
        matrix(b + "ffn_up.weight", d, ff)
        matrix(b + "ffn_down.weight", ff, d)
    w.constant("output_norm.weight", d, 1)
    matrix("output.weight", d, vocab, head)


def add_vision(w, noise, size, single):
    """Keys and tensors of the CLIP ViT-L/14 tower and the two-layer projector.

    Legacy conventions: one layer is already dropped (23 of 24), there is no post-norm, and the
    first matrix of the feed-forward block is called ffn_down, the second ffn_up.
    """
    s = SIZES[size]
    vd, vff, d, image = s["vd"], s["vff"], s["d"], s["image"]
    if not single:
        w.keys({"general.architecture": "clip", "general.name": f"random LLaVA {size} vision", "general.file_type": 1})
    w.keys({
        "clip.has_text_encoder": False, "clip.has_vision_encoder": True, "clip.has_llava_projector": True,
        "clip.projector_type": "mlp", "clip.use_gelu": False, "clip.vision.image_size": image,
        "clip.vision.patch_size": PATCH, "clip.vision.embedding_length": vd, "clip.vision.feed_forward_length": vff,
        "clip.vision.projection_dim": 768, "clip.vision.attention.head_count": s["vheads"],
        "clip.vision.attention.layer_norm_epsilon": 1e-5, "clip.vision.block_count": s["vlayers"],
        "clip.vision.image_mean": [0.48145466, 0.4578275, 0.40821073],
        "clip.vision.image_std": [0.26862954, 0.26130258, 0.27577711]})

    def linear(name, cols, rows):
        w.tensor(name + ".weight", "f16", (cols, rows), lambda: noise.matrix("f16", cols, rows))
        w.constant(name + ".bias", rows, 0)

    def norm(name):
        w.constant(name + ".weight", vd, 1)
        w.constant(name + ".bias", vd, 0)

    positions = (image // PATCH) ** 2 + 1
    w.constant("v.class_embd", vd, 0.02)
    w.tensor("v.patch_embd.weight", "f16", (PATCH, PATCH, 3, vd), lambda: noise.matrix("f16", PATCH * PATCH * 3, vd))
    w.tensor("v.position_embd.weight", "f16", (vd, positions), lambda: noise.matrix("f16", vd, positions))
    norm("v.pre_ln")
    for i in range(s["vlayers"]):
        b = f"v.blk.{i}."
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            linear(b + name, vd, vd)
        norm(b + "ln1")
        linear(b + "ffn_down", vd, vff)
        linear(b + "ffn_up", vff, vd)
        norm(b + "ln2")
    linear("mm.0", vd, d)
    linear("mm.2", d, d)


def generate(out, size, kind, only=None, single=False, seed=0):
    """Write the files asked for and return their paths."""
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    if single:
        noise, w = Noise(seed), Writer(out / f"llava-{size}-{kind}-single.gguf")
        add_language_model(w, noise, size, kind)
        add_vision(w, noise, size, single=True)
        return [w.close()]
    if only != "mmproj":
        w = Writer(out / f"llava-{size}-{kind}.gguf")
        add_language_model(w, Noise(seed), size, kind)
        paths.append(w.close())
    if only != "lm":
        w = Writer(out / f"mmproj-{size}-f16.gguf")
        add_vision(w, Noise(seed), size, single=False)
        paths.append(w.close())
    return paths


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out", help="directory to write to")
    p.add_argument("--size", choices=SIZES, default="7b")
    p.add_argument("--type", choices=TYPES, default="q4_0")
    p.add_argument("--only", choices=("lm", "mmproj"))
    p.add_argument("--single", action="store_true", help="language model and vision tower in one file")
    p.add_argument("--seed", type=int, default=0)
    a = p.parse_args()
    for path in generate(a.out, a.size, a.type, a.only, a.single, a.seed):
        print(path)


if __name__ == "__main__":
    main()
