"""The demo model as a Hugging Face directory: the weights of the GGUF file under transformers' names, in the same types.

    python3 tools/demo/export_hf.py models/demo/candid-demo.gguf models/demo-hf

Needs tests/golden/requirements-hf.txt.  Two rows are added to the vocabulary, as on the hub: <image>, which the processor
expands, and <pad>.  Their rows are copies of <unk>'s, which training has pushed down, so neither is ever chosen.
"""
import argparse
import json
import os

import numpy as np
import sentencepiece.sentencepiece_model_pb2 as spm
from safetensors.numpy import save_file
from transformers import CLIPImageProcessor, LlamaTokenizerFast, LlavaProcessor

import gguf_io as gg
from export import unpermute
from model import CLIP_MEAN, CLIP_STD, TEXT, VISION

TEMPLATE = ("{% for message in messages %}{{ message['role'].upper() + ': '}}"
            "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
            "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}"
            "{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}")
FIXED = {"token_embd.weight": "language_model.model.embed_tokens.weight", "output_norm.weight": "language_model.model.norm.weight",
         "output.weight": "language_model.lm_head.weight", "mm.0": "multi_modal_projector.linear_1",
         "mm.2": "multi_modal_projector.linear_2", "v.class_embd": "embeddings.class_embedding",
         "v.patch_embd.weight": "embeddings.patch_embedding.weight",
         "v.position_embd.weight": "embeddings.position_embedding.weight", "v.pre_ln": "pre_layrnorm"}
TEXT_LAYER = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
              "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
              "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
VISION_LAYER = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
                "attn_out": "self_attn.out_proj", "ffn_up": "mlp.fc1", "ffn_down": "mlp.fc2", "ln1": "layer_norm1",
                "ln2": "layer_norm2"}


def hf_name(name):
    """GGUF tensor name -> transformers' name on disk."""
    tower = "vision_tower.vision_model."
    part = name.split(".")
    if part[0] == "blk":
        return f"language_model.model.layers.{part[1]}.{TEXT_LAYER[part[2]]}.{part[3]}"
    if name.startswith("v.blk."):
        return f"{tower}encoder.layers.{part[2]}.{VISION_LAYER[part[3]]}.{part[4]}"
    stem = name if name in FIXED else name.rsplit(".", 1)[0]
    return (tower if name.startswith("v.") else "") + FIXED[stem] + name[len(stem):]


def write_json(folder, name, value):
    with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
        json.dump(value, f, indent=2)
        f.write("\n")


def weights(tensors):
    out = {}
    for name, a in tensors.items():
        if name.startswith("blk.") and name.endswith(("attn_q.weight", "attn_k.weight")):
            a = unpermute(a, TEXT["heads"])
        if name in ("token_embd.weight", "output.weight"):
            a = np.concatenate([a, a[:1], a[:1]])
        out[hf_name(name)] = np.ascontiguousarray(a)
    norm = "vision_tower.vision_model.post_layernorm."      # transformers wants one; the features are taken before it
    return dict(out, **{norm + "weight": np.ones(VISION["width"], np.float32),
                        norm + "bias": np.zeros(VISION["width"], np.float32)})


def config(n_vocab):
    return dict(
        architectures=["LlavaForConditionalGeneration"], model_type="llava", image_token_index=n_vocab - 2,
        image_seq_length=(VISION["image"] // VISION["patch"]) ** 2, pad_token_id=n_vocab - 1, projector_hidden_act="gelu",
        tie_word_embeddings=False, torch_dtype="float16", vision_feature_layer=-1, vision_feature_select_strategy="default",
        text_config=dict(model_type="llama", hidden_size=TEXT["width"], intermediate_size=TEXT["mlp"],
                         num_hidden_layers=TEXT["layers"], num_attention_heads=TEXT["heads"], rms_norm_eps=TEXT["eps"],
                         rope_theta=TEXT["rope_base"], max_position_embeddings=512, vocab_size=n_vocab, bos_token_id=1,
                         eos_token_id=2, torch_dtype="float16"),
        vision_config=dict(model_type="clip_vision_model", hidden_size=VISION["width"], intermediate_size=VISION["mlp"],
                           num_hidden_layers=VISION["layers"], num_attention_heads=VISION["heads"],
                           image_size=VISION["image"], patch_size=VISION["patch"], projection_dim=TEXT["width"]))


def tokenizer(folder, keys):
    """tokenizer.model with the pieces of the GGUF file, and the tokenizer.json transformers makes of it."""
    m = spm.ModelProto()
    for text, score, kind in zip(*(keys[f"tokenizer.ggml.{k}"] for k in ("tokens", "scores", "token_type"))):
        m.pieces.add(piece=text, score=score, type=kind)
    m.trainer_spec.model_type, m.trainer_spec.byte_fallback, m.trainer_spec.pad_id = 2, True, -1
    m.trainer_spec.vocab_size = len(m.pieces)
    m.normalizer_spec.name, m.normalizer_spec.add_dummy_prefix = "identity", True
    m.normalizer_spec.remove_extra_whitespaces, m.normalizer_spec.escape_whitespaces = False, True
    path = os.path.join(folder, "tokenizer.model")
    with open(path, "wb") as f:
        f.write(m.SerializeToString())
    tok = LlamaTokenizerFast(vocab_file=path, legacy=True, add_prefix_space=True)
    tok.add_special_tokens({"additional_special_tokens": ["<image>"], "pad_token": "<pad>"})
    return tok


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("gguf")
    ap.add_argument("out")
    args = ap.parse_args()
    os.makedirs(args.out, exist_ok=True)
    keys, tensors = gg.read(args.gguf)
    side = VISION["image"]
    image = CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side}, image_mean=CLIP_MEAN,
                               image_std=CLIP_STD)
    LlavaProcessor(image, tokenizer(args.out, keys), patch_size=VISION["patch"], vision_feature_select_strategy="default",
                   chat_template=TEMPLATE, num_additional_image_tokens=1).save_pretrained(args.out)
    state = weights(tensors)
    write_json(args.out, "config.json", config(len(state["language_model.lm_head.weight"])))
    write_json(args.out, "generation_config.json", dict(bos_token_id=1, eos_token_id=2))
    save_file(state, os.path.join(args.out, "model.safetensors"), metadata={"format": "pt"})
    print(args.out, sum(os.path.getsize(os.path.join(args.out, f)) for f in os.listdir(args.out)), "bytes")


if __name__ == "__main__":
    main()
