#!/usr/bin/env python3
"""Writes the seed files of fuzz_gguf and fuzz_hf to corpus/: small valid files of every shape the readers know; and of
fuzz_plugin: for each of its configurations calls as a host makes them.

Standard library only; the files are the same on every machine.
"""
import json
import pathlib
import struct

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
PACK = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "?", U64: "Q", I64: "q", F64: "d"}
T_F32, T_F16, T_Q4_0, T_Q8_0, T_Q4_K, T_Q5_K, T_Q6_K, T_BF16 = 0, 1, 2, 8, 12, 13, 14, 30
BLOCK = {T_F32: (1, 4), T_F16: (1, 2), T_BF16: (1, 2), T_Q4_0: (32, 18), T_Q8_0: (32, 34), T_Q4_K: (256, 144),
         T_Q5_K: (256, 176), T_Q6_K: (256, 210)}


def string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def value(kind, v):
    if kind == STRING:
        return string(v)
    if kind == ARRAY:
        element, items = v
        return struct.pack("<IQ", element, len(items)) + b"".join(value(element, x) for x in items)
    return struct.pack("<" + PACK[kind], v)


def gguf(keys, tensors, version=3, align=32):
    """keys: (name, kind, value); tensors: (name, type, shape with the row length first)."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys))
    for name, kind, v in keys:
        head += string(name) + struct.pack("<I", kind) + value(kind, v)
    data = b""
    for name, kind, shape in tensors:
        data += b"\0" * (-len(data) % align)
        head += string(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}q", *shape)
        head += struct.pack("<IQ", kind, len(data))
        n = 1
        for s in shape:
            n *= s
        per, size = BLOCK[kind]
        data += bytes((7 * i) & 63 for i in range(n // per * size))
    return head + b"\0" * (-len(head) % align) + data


def llama_keys(d=8, layers=1, heads=2, kv=1, ff=8, vocab=4, **_):
    return [("general.architecture", STRING, "llama"), ("llama.context_length", U32, 16),
            ("llama.embedding_length", U32, d), ("llama.block_count", U32, layers),
            ("llama.feed_forward_length", U32, ff), ("llama.attention.head_count", U32, heads),
            ("llama.attention.head_count_kv", U32, kv), ("llama.attention.layer_norm_rms_epsilon", F32, 1e-5),
            ("llama.rope.freq_base", F32, 1e4), ("llama.vocab_size", U32, vocab),
            ("tokenizer.ggml.model", STRING, "llama"),
            ("tokenizer.ggml.tokens", ARRAY, (STRING, ["<unk>", "<s>", "</s>", "a"])),
            ("tokenizer.ggml.scores", ARRAY, (F32, [0.0, 0.0, 0.0, -1.0])),
            ("tokenizer.ggml.token_type", ARRAY, (I32, [2, 3, 3, 1]))]


def llama_tensors(d=8, layers=1, heads=2, kv=1, ff=8, vocab=4, kind=T_F32, norm=T_F32, tied=False):
    out = [("token_embd.weight", kind, (d, vocab))]
    for i in range(layers):
        b = f"blk.{i}."
        out += [(b + "attn_norm.weight", norm, (d,)), (b + "attn_q.weight", kind, (d, d)),
                (b + "attn_k.weight", kind, (d, d // heads * kv)), (b + "attn_v.weight", kind, (d, d // heads * kv)),
                (b + "attn_output.weight", kind, (d, d)), (b + "ffn_norm.weight", norm, (d,)),
                (b + "ffn_gate.weight", kind, (d, ff)), (b + "ffn_up.weight", kind, (d, ff)),
                (b + "ffn_down.weight", kind, (ff, d))]
    return out + [("output_norm.weight", norm, (d,))] + ([] if tied else [("output.weight", kind, (d, vocab))])


def clip_keys(d=4, ff=8, layers=1, **_):
    return [("clip.has_vision_encoder", BOOL, True), ("clip.has_llava_projector", BOOL, True),
            ("clip.use_gelu", BOOL, False), ("clip.vision.image_size", U32, 4), ("clip.vision.patch_size", U32, 2),
            ("clip.vision.embedding_length", U32, d), ("clip.vision.feed_forward_length", U32, ff),
            ("clip.vision.attention.head_count", U32, 2),
            ("clip.vision.attention.layer_norm_epsilon", F32, 1e-5), ("clip.vision.block_count", U32, layers),
            ("clip.vision.image_mean", ARRAY, (F32, [.5, .5, .5])), ("clip.vision.image_std", ARRAY, (F32, [.5, .5, .5]))]


def clip_tensors(d=4, ff=8, layers=1, lm=8, kind=T_F32, vec=T_F32, modern=False, projector="mlp"):
    def pair(name, n_in, n_out):
        return [(name + ".weight", kind, (n_in, n_out)), (name + ".bias", vec, (n_out,))]

    def norm(name, n):
        return [(name + ".weight", vec, (n,)), (name + ".bias", vec, (n,))]

    out = [("v.class_embd", vec, (d,)), ("v.patch_embd.weight", T_F16, (2, 2, 3, d)),
           ("v.position_embd.weight", vec, (d, 5))] + norm("v.pre_ln", d)
    first, second = ("ffn_up", "ffn_down") if modern else ("ffn_down", "ffn_up")
    for i in range(layers):
        b = f"v.blk.{i}."
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            out += pair(b + name, d, d)
        out += norm(b + "ln1", d) + norm(b + "ln2", d) + pair(b + first, d, ff) + pair(b + second, ff, d)
    out += norm("v.post_ln", d) if modern else []
    if projector == "linear":
        return out + pair("mm.0", d, lm)
    if projector == "mlp_norm":
        return out + pair("mm.0", d, lm) + norm("mm.1", lm) + pair("mm.3", lm, lm) + norm("mm.4", lm)
    return out + pair("mm.0", d, lm) + pair("mm.2", lm, lm)


wide = dict(d=32, ff=32)
clip_arch = [("general.architecture", STRING, "clip")]
scalars = [("u8", U8, 200), ("i8", I8, -3), ("u16", U16, 65535), ("i16", I16, -1), ("u32", U32, 1 << 31),
           ("i32", I32, -1), ("f32", F32, 0.5), ("bool", BOOL, True), ("string", STRING, "caf\u00e9"),
           ("u64", U64, (1 << 64) - 1), ("i64", I64, -1), ("f64", F64, 1e300), ("array", ARRAY, (U8, [1, 2])),
           ("bools", ARRAY, (BOOL, [True, False])), ("empty", ARRAY, (STRING, [])),
           ("strings", ARRAY, (STRING, ["", "b", "cc"])), ("doubles", ARRAY, (F64, [1e300, -1.0]))]
every_type = [("f32", T_F32, (3,)), ("f16", T_F16, (3, 2)), ("bf16", T_BF16, (1, 1, 1, 5)), ("q4_0", T_Q4_0, (32,)),
              ("q8_0", T_Q8_0, (32, 2)), ("q4_k", T_Q4_K, (256,)), ("q5_k", T_Q5_K, (256,)), ("q6_k", T_Q6_K, (256,))]
seeds = {
    "scalars": gguf(scalars, []),
    "types": gguf([], every_type),
    "align64-v2": gguf([("general.alignment", U32, 64)], every_type[:3], version=2, align=64),
    "llama": gguf(llama_keys(), llama_tensors()),
    "llama-q8": gguf(llama_keys(**wide), llama_tensors(**wide, kind=T_Q8_0, norm=T_F16)),
    "llama-rope": gguf(llama_keys() + [("llama.rope.scaling.type", STRING, "linear"),
                                       ("llama.rope.scaling.factor", F32, 2.0),
                                       ("llama.rope.dimension_count", U32, 4)],
                       [("rope_freqs.weight", T_BF16, (2,))] + llama_tensors(tied=True)),
    "clip-legacy": gguf(clip_arch + clip_keys() + [("clip.projector_type", STRING, "mlp")], clip_tensors()),
    "clip-modern": gguf(clip_arch + clip_keys(layers=2) + [("clip.vision.feature_layer", ARRAY, (I32, [-2])),
                                                           ("clip.vision.projector_type", STRING, "mlp")],
                        clip_tensors(layers=2, modern=True, vec=T_F16)),
    "clip-norm": gguf(clip_arch + clip_keys(), clip_tensors(projector="mlp_norm", vec=T_BF16)),
    "clip-linear": gguf(clip_arch + clip_keys(), clip_tensors(projector="linear")),
    "both": gguf(llama_keys() + clip_keys(), llama_tensors() + clip_tensors()),
}
folder = pathlib.Path(__file__).parent / "corpus" / "gguf"
folder.mkdir(parents=True, exist_ok=True)
for name, data in seeds.items():
    (folder / f"{name}.gguf").write_bytes(data)

# ---- fuzz_hf: one byte that chooses the parser, then the file ----


def safetensors(tensors):
    """tensors: (name, dtype, shape, bytes)."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, dtype, shape, content in tensors:
        header[name] = dict(dtype=dtype, shape=shape, data_offsets=[len(data), len(data) + len(content)])
        data += content
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def varint(n):
    n &= (1 << 64) - 1
    out = b""
    while n >= 0x80:
        out += bytes([n & 0x7F | 0x80])
        n >>= 7
    return out + bytes([n])


def field(number, wire, content):
    head = varint(number << 3 | wire)
    return head + (varint(content) if wire == 0 else varint(len(content)) + content if wire == 2 else content)


def sentencepiece(pieces):
    """pieces: (text, score, type)."""
    out = b""
    for text, score, kind in pieces:
        out += field(1, 2, field(1, 2, text.encode()) + field(2, 5, struct.pack("<f", score)) + field(3, 0, kind))
    return (out + field(2, 2, field(3, 0, 2) + field(35, 0, 1) + field(40, 0, 0) + field(41, 0, 1) + field(43, 0, -1)) +
            field(3, 2, field(1, 2, b"identity") + field(3, 0, 1) + field(4, 0, 0) + field(5, 0, 1)))


space = "\u2581"
words = ["<unk>", "<s>", "</s>", "<0x20>", "<0xF0>", space, "T", "h", "e", "q", "u", "i", "c", "k", "Th", "The", space + "The",
         "qu", "ick", "ic", "quick", space + "quick", "1"]
merges = ["T h", "Th e", space + " The", "q u", "i c", "ic k", "qu ick", space + " quick"]
added = [dict(id=i, content=words[i], single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
         for i in range(3)]
bpe = dict(type="BPE", dropout=None, unk_token="<unk>", fuse_unk=True, byte_fallback=True, ignore_merges=False,
           vocab={w: i for i, w in enumerate(words)}, merges=merges)
prepend = dict(type="Sequence", normalizers=[dict(type="Prepend", prepend=space),
                                             dict(type="Replace", pattern=dict(String=" "), content=space)])
post = dict(type="TemplateProcessing", single=[dict(SpecialToken=dict(id="<s>", type_id=0)), dict(Sequence=dict(id="A"))])
metaspace = dict(type="Metaspace", replacement=space, prepend_scheme="first", split=False)
text = dict(model_type="llama", hidden_size=64, intermediate_size=112, num_hidden_layers=2, num_attention_heads=4,
            vocab_size=432, rms_norm_eps=1e-5, rope_parameters=dict(rope_type="linear", factor=2.0, rope_theta=1e4))
vision = dict(model_type="clip_vision_model", hidden_size=32, num_attention_heads=4, image_size=56, patch_size=14,
              hidden_act="quick_gelu")
pre = dict(crop_size=dict(height=56, width=56), size=dict(shortest_edge=56), resample=3, image_mean=[0.5, 0.5, 0.5],
           do_center_crop=True, rescale_factor=1 / 255)
hf = {
    "weights": b"\0" + safetensors([("a", "F32", [2], bytes(8)), ("b.weight", "BF16", [2, 3], bytes(12)),
                                    ("c", "I64", [], bytes(8)), ("d", "F16", [0, 4], b"")]),
    "tokenizer": b"\1" + json.dumps(dict(added_tokens=added, normalizer=prepend, pre_tokenizer=None, post_processor=post,
                                         model=bpe)).encode(),
    "tokenizer-pairs": b"\1" + json.dumps(dict(added_tokens=added, normalizer=None, pre_tokenizer=metaspace, model=dict(
        bpe, merges=[m.split(" ") for m in merges]))).encode(),
    "sentencepiece": b"\2" + sentencepiece([(w, -float(i), 2 if i == 0 else 3 if i < 3 else 6 if w[0] == "<" else 1)
                                            for i, w in enumerate(words)]),
    "config-llava": b"\3" + json.dumps(dict(pre, model_type="llava", text_config=text, vision_config=vision,
                                            vision_feature_layer=-2, image_token_index=32000)).encode(),
    "config-next": b"\3" + json.dumps(dict(pre, model_type="llava_next", text_config=dict(text, model_type="mistral"),
                                           vision_config=vision, image_grid_pinpoints=[[56, 112], [112, 56]])).encode(),
    "config-original": b"\3" + json.dumps(dict(text, model_type="llava", mm_vision_select_layer=-2, image_aspect_ratio="pad",
                                               mm_projector_type="mlp2x_gelu", mm_vision_tower="clip")).encode(),
}
folder = pathlib.Path(__file__).parent / "corpus" / "hf"
folder.mkdir(parents=True, exist_ok=True)
for name, data in hf.items():
    (folder / name).write_bytes(data)

folder = pathlib.Path(__file__).parent / "corpus" / "plugin"
folder.mkdir(parents=True, exist_ok=True)
for number in range(11):
    state, calls = number, bytearray([number, 16])
    for _ in range(1500):
        state = (state * 1664525 + 1013904223) % 2**32
        calls.append((state >> 24) % 220)  # what is above makes a call go wrong
    (folder / f"config-{number}").write_bytes(calls)
