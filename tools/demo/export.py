"""Export a trained checkpoint as one GGUF file (decoder, tokenizer, vision tower and projector), or load
such a file back into the PyTorch model.  Matrices are F16; norms, biases and position embeddings F32."""
import argparse
import os

import numpy as np
import torch

import gguf_io as gg
import scenes
import tokenizer
from model import CLIP_MEAN, CLIP_STD, TEXT, VISION, DemoModel

CONVERSATION = "USER: <image>\n{prompt} ASSISTANT:"
VISION_NAMES = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "out": "attn_out", "fc1": "ffn_up", "fc2": "ffn_down",
                "ln1": "ln1", "ln2": "ln2"}
TEXT_NAMES = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output", "gate": "ffn_gate", "up": "ffn_up",
              "down": "ffn_down", "attn_norm": "attn_norm", "ffn_norm": "ffn_norm"}
FIXED = {
    "vision.class_embedding": "v.class_embd", "vision.patch_embedding.weight": "v.patch_embd.weight",
    "vision.position_embedding": "v.position_embd.weight", "vision.pre_layrnorm.weight": "v.pre_ln.weight",
    "vision.pre_layrnorm.bias": "v.pre_ln.bias", "mm0.weight": "mm.0.weight", "mm0.bias": "mm.0.bias",
    "mm2.weight": "mm.2.weight", "mm2.bias": "mm.2.bias", "embed.weight": "token_embd.weight",
    "norm.weight": "output_norm.weight", "output.weight": "output.weight",
}


def gguf_name(name):
    """PyTorch parameter name -> GGUF tensor name; None for the training-only heads."""
    if name in FIXED:
        return FIXED[name]
    part = name.split(".")
    if part[0] == "vision" and part[1] == "layers":
        return f"v.blk.{part[2]}.{VISION_NAMES[part[3]]}.{part[4]}"
    if part[0] == "blocks":
        return f"blk.{part[1]}.{TEXT_NAMES[part[2]]}.{part[3]}"
    return None


def permute(w, heads):
    """HF halves -> adjacent pairs (rows of q and k)."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(w.shape)


def unpermute(w, heads):
    return w.reshape(heads, w.shape[0] // heads // 2, 2, -1).swapaxes(1, 2).reshape(w.shape)


def rotated(name):
    return name.startswith("blk.") and name.endswith(("attn_q.weight", "attn_k.weight"))


def tensors_of(state):
    """GGUF tensors of a state dict."""
    out = {}
    for name, value in state.items():
        target = gguf_name(name)
        if target is None:
            continue
        a = value.detach().float().numpy()
        if rotated(target):
            a = permute(a, TEXT["heads"])
        half = a.ndim >= 2 and target != "v.position_embd.weight"
        out[target] = a.astype(np.float16 if half else np.float32)
    return out


def keys_of(tok, cca=False):
    """GGUF key-value pairs."""
    u, f, s, b = (lambda v: (gg.U32, v)), (lambda v: (gg.F32, v)), (lambda v: (gg.STRING, v)), (lambda v: (gg.BOOL, v))
    floats = lambda v: (gg.ARRAY, (gg.F32, list(v)))
    keys = {
        "general.architecture": s("llama"), "general.name": s("candid-demo-cca" if cca else "candid-demo"), "general.file_type": u(1),
        "general.description": s("Toy LLaVA-shaped model on emoji scenes; proves the pipeline, says nothing about LLaVA"),
        "candid.conversation": s(CONVERSATION),
        "llama.context_length": u(512), "llama.embedding_length": u(TEXT["width"]),
        "llama.block_count": u(TEXT["layers"]), "llama.feed_forward_length": u(TEXT["mlp"]),
        "llama.attention.head_count": u(TEXT["heads"]), "llama.attention.head_count_kv": u(TEXT["heads"]),
        "llama.attention.layer_norm_rms_epsilon": f(TEXT["eps"]),
        "llama.rope.dimension_count": u(TEXT["width"] // TEXT["heads"]), "llama.rope.freq_base": f(TEXT["rope_base"]),
        "llama.vocab_size": u(len(tok.pieces)),
        "tokenizer.ggml.model": s("llama"), "tokenizer.ggml.pre": s("default"),
        "tokenizer.ggml.tokens": (gg.ARRAY, (gg.STRING, tok.pieces)), "tokenizer.ggml.scores": floats(tok.scores),
        "tokenizer.ggml.token_type": (gg.ARRAY, (gg.I32, tok.types())),
        "tokenizer.ggml.bos_token_id": u(1), "tokenizer.ggml.eos_token_id": u(2),
        "tokenizer.ggml.unknown_token_id": u(0), "tokenizer.ggml.add_bos_token": b(True),
        "tokenizer.ggml.add_eos_token": b(False), "tokenizer.ggml.add_space_prefix": b(True),
        "clip.has_text_encoder": b(False), "clip.has_vision_encoder": b(True), "clip.has_llava_projector": b(True),
        "clip.projector_type": s("mlp"), "clip.use_gelu": b(False), "clip.use_silu": b(False),
        "clip.vision.image_size": u(VISION["image"]), "clip.vision.patch_size": u(VISION["patch"]),
        "clip.vision.embedding_length": u(VISION["width"]), "clip.vision.feed_forward_length": u(VISION["mlp"]),
        "clip.vision.projection_dim": u(TEXT["width"]), "clip.vision.attention.head_count": u(VISION["heads"]),
        "clip.vision.attention.layer_norm_epsilon": f(1e-5), "clip.vision.block_count": u(VISION["layers"]),
        "clip.vision.image_mean": floats(CLIP_MEAN), "clip.vision.image_std": floats(CLIP_STD),
        "clip.vision.image_aspect_ratio": s("pad"), "clip.vision.mm_patch_merge_type": s("flat"),
    }
    if cca:
        keys["candid.trained_with"] = s("cca")
    return keys


def load_gguf(path):
    """The PyTorch model (without trained heads) with exactly the weights stored in a GGUF file."""
    keys, tensors = gg.read(path)
    model = DemoModel(tensors["token_embd.weight"].shape[0], len(scenes.NAMES), "candid.trained_with" in keys)
    state = model.state_dict()
    for name in state:
        target = gguf_name(name)
        if target is not None:
            a = tensors[target].astype(np.float32)
            state[name] = torch.from_numpy(unpermute(a, TEXT["heads"]) if rotated(target) else a.copy())
    model.load_state_dict(state)
    return model.eval()


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("checkpoint")
    ap.add_argument("out")
    args = ap.parse_args()
    checkpoint = torch.load(args.checkpoint, map_location="cpu")
    state = checkpoint["model"]
    gg.write(args.out, keys_of(tokenizer.Tokenizer(), checkpoint["args"].get("cca", False)), tensors_of(state))
    print(args.out, os.path.getsize(args.out), "bytes")
    for name, value in load_gguf(args.out).state_dict().items():     # read back and compare
        if gguf_name(name):
            want = value if value.dim() < 2 or "position" in name else state[name].half().float()
            assert torch.equal(value, want), name


if __name__ == "__main__":
    main()
