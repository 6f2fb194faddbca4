"""Makes tests/golden/hf: tiny random LLaVA models as Hugging Face directories, and what transformers computes with them.

    python3 -m venv /tmp/hf && /tmp/hf/bin/pip install -r tests/golden/requirements-hf.txt
    /tmp/hf/bin/python tests/golden/make_hf_models.py            # writes tests/golden/hf
    /tmp/hf/bin/python tests/golden/make_hf_models.py --check    # makes it again elsewhere and compares

Nothing is downloaded. Read by tests/unit/test_hf.c.  For every model hf/NAME/ is the directory as a user has it on disk,
hf/NAME.safetensors holds the recorded numbers (f32 and i32, names "CASE.WHAT") and hf/cases.json says what was asked:

  input_ids        the prompt with its images expanded, as processor (or the original LLaVA's code) gives them
  pixels           (views, 3, size, size): what the image encoder got, images one after the other
  vision_hidden.L  hidden state L of the image encoder for the first view; L = 0: embeddings after the first norm
  text_hidden.L    (positions, width): hidden state L of the decoder over the prompt, first case only; L = 0: embeddings
  visual_tokens    (tokens, width): all images' tokens as they stand in the prompt
  prefill_logits   (positions, vocabulary); in all but the first case of the last position only
  decode_logits    (32, vocabulary): from which the greedy tokens 1..32 were chosen (some cases)
  greedy_ids       33 tokens; the end token does not stop it

All is computed in f32 with the slow (PIL) image processors and eager attention.  Weights are stored in the type the
model says and widened again before anything is computed.
"""
import argparse
import filecmp
import io
import json
import os
import shutil
import sys
import tempfile

import numpy as np
import sentencepiece
import torch
from PIL import Image, ImageDraw
from safetensors.numpy import load_file, save_file
from transformers import (CLIPImageProcessor, CLIPVisionConfig, LlamaConfig, LlamaTokenizer, LlamaTokenizerFast, LlavaConfig,
                          LlavaForConditionalGeneration, LlavaNextConfig, LlavaNextForConditionalGeneration,
                          LlavaNextImageProcessor, LlavaNextProcessor, LlavaProcessor, MistralConfig)

HERE = os.path.dirname(os.path.abspath(__file__))
IMAGE, STEPS = "<image>", 32
ROWS = 432      # rows of the embedding table: more than the tokenizer has pieces, as on the hub

TEXT = """The quick brown fox jumps over the lazy dog and looks at 12 small birds.
USER: What is in the image? ASSISTANT: There is a dog on the left and a cat on the right.
A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful answers.
Please help me describe the image in detail. The image shows a street with two cars, a bus and 345 people.
Is there a keyboard in the image? No, there is no keyboard.  Two  spaces   and three.
Größe, Übung, Äpfel, straße: über den Fluss.  Où est le café? Él está aquí.
[INST] Describe the picture [/INST] It shows the sea, the sky and 1 boat at 6789 metres.
for i in range(10): print("hello, world")""".split("\n")

AWKWARD = ["", " ", "  ", "a", " a", "a ", "  two  spaces  ", "\n", "\n\n", "a\nb", "\tTab\tand\ttab", "The quick brown fox",
           "the quickbrownfox", "12345678901", "3.14159", "Größe über straße", "Éèê", "日本語のテキスト", "🐕 and 🐈", "👩‍👩‍👧", "e\u0301",
           "don't", "a<image>b", "<image>", "<image>\nWhat?", "What? <image>", "<image><image>", "x <image> y <image> z", "</s>",
           "a</s>b", "<s>", "<unk>", "<0x0A>", "▁", "a▁b", "\u00a0", "\u200b", "USER: What is in the image? ASSISTANT:",
           "[INST] Describe [/INST]", "ASSISTANT: There", "  indented\n    more", "a" * 70, "\r\n", "$%&/()=?", "<pad>", "\x00\x01"]


def tokenizer_files(folder, slow, more):
    """tokenizer.model (and tokenizer.json unless slow) with <image> and <pad>, as the hub's LLaVA has them."""
    os.makedirs(folder, exist_ok=True)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT * 3), model_writer=model, vocab_size=412, model_type="bpe", byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True, character_coverage=1.0,
        unk_id=0, bos_id=1, eos_id=2, pad_id=-1, num_threads=1, minloglevel=2, hard_vocab_limit=False)
    path = os.path.join(folder, "tokenizer.model")
    with open(path, "wb") as f:
        f.write(model.getvalue())
    kind = LlamaTokenizer if slow else LlamaTokenizerFast
    tok = kind(vocab_file=path, **more)
    tok.add_special_tokens({"additional_special_tokens": [IMAGE], "pad_token": "<pad>"})
    return tok


def images():
    """name -> PIL image."""
    out = {}
    for name, (w, h) in dict(square=(60, 60), wide=(97, 41), tall=(33, 80), large=(200, 150)).items():
        y, x = np.mgrid[0:h, 0:w]
        a = np.stack([x * 255 / w, y * 255 / h, (x + y) * 255 / (w + h)], -1).astype(np.uint8)
        im = Image.fromarray(a)
        d = ImageDraw.Draw(im)
        d.ellipse([w // 5, h // 5, w // 2, h // 2], fill=(250, 40, 30))
        d.rectangle([w // 2, h // 2, w - 5, h - 4], fill=(20, 60, 230))
        d.line([0, h - 1, w - 1, 0], fill=(255, 255, 255), width=2)
        out[name] = im
    return out


def square(im, mean):
    """The original LLaVA's expand2square."""
    w, h = im.size
    out = Image.new("RGB", (max(w, h),) * 2, tuple(int(m * 255) for m in mean))
    out.paste(im, ((max(w, h) - w) // 2, (max(w, h) - h) // 2))
    return out


def randomise(model, seed):
    """Weights whose activations neither vanish nor explode, logits a few units apart."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            r = torch.randn(p.shape, generator=g)
            if "norm" in name and name.endswith("weight"):
                p.copy_(1 + 0.1 * r)
            elif p.dim() == 1:
                p.copy_(0.1 * r if name.endswith("bias") else r)
            elif "embed_tokens" in name:
                p.copy_((0.5 if model.config.get_text_config().tie_word_embeddings else 1.0) * r)
            elif "position" in name:
                p.copy_(0.5 * r)
            else:
                p.copy_((2.5 if "lm_head" in name else 1.2) * r / p[0].numel() ** 0.5)


def vision_config(**more):
    return CLIPVisionConfig(**{**dict(hidden_size=32, intermediate_size=72, num_hidden_layers=3, num_attention_heads=4,
                                      image_size=56, patch_size=14, projection_dim=16), **more})


def mistral(**more):
    return MistralConfig(**{**dict(hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
                                   num_key_value_heads=2, head_dim=24, vocab_size=ROWS, max_position_embeddings=2048,
                                   sliding_window=1024), **more})


def llama(**more):
    return LlamaConfig(**{**dict(hidden_size=64, intermediate_size=112, num_hidden_layers=2, num_attention_heads=4,
                                 vocab_size=ROWS, max_position_embeddings=1024, rms_norm_eps=1e-5), **more})


PINPOINTS = [[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]]
HUB_15 = ("{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}"
          "{# Render all images first #}{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
          "{{ '<image>\n' }}{% endfor %}{# Render all text next #}{% if message['role'] != 'assistant' %}"
          "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}{% endfor %}"
          "{% else %}{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{% generation %}"
          "{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endif %}{% endfor %}{% if add_generation_prompt %}"
          "{{ 'ASSISTANT:' }}{% endif %}")
HUB_MISTRAL = ("{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' }}{% endif %}"
               "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
               "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] }}{% endfor %}"
               "{% if message['role'] == 'user' %}{{ ' [/INST]' }}{% endif %}{% endfor %}")
HUB_16_VICUNA = ("{% for message in messages %}{% if message['role'] == 'user' %}{{ 'A chat between a curious human and an "
                 "artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the human\\'s "
                 "questions. USER: ' }}{% endif %}"
                 "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
                 "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] }}{% endfor %}"
                 "{% endfor %}{% if add_generation_prompt %}{{ ' ASSISTANT:' }}{% endif %}")

# The hub's tokenizer.json puts the space in front by a normaliser, at the start and after each special token; with
# legacy=False Metaspace does so at the start only; without add_prefix_space nothing does.
HUB_TOKENIZER = dict(legacy=True, add_prefix_space=True)

# name -> configuration, storage type, tensor names (old: as on the hub, new: as transformers has them in memory), shards
MODELS = {
    "llava15_mha": dict(text=llama(), dtype="float32", names="old", template=HUB_15),
    "llava15_gqa": dict(text=mistral(), dtype="bfloat16", names="new", shards=3, template=HUB_MISTRAL, json_only=True,
                        tokenizer=dict(legacy=False, add_prefix_space=True),
                        vision=dict(image_size=70, hidden_size=40, num_attention_heads=5)),
    "llava15_tied": dict(text=llama(hidden_size=48, num_attention_heads=6, tie_word_embeddings=True, rope_theta=1e6,
                                    rope_scaling=dict(rope_type="linear", factor=2.0)),
                         dtype="float16", names="old", model_only=True, feature_layer=-1, template=HUB_15),
    "liuhaotian": dict(text=llama(num_key_value_heads=2), dtype="float16", names="original", model_only=True),
    "next_vicuna": dict(text=llama(), dtype="float32", names="new", next=True, template=HUB_16_VICUNA),
    "next_mistral": dict(text=mistral(), dtype="float16", names="old", next=True, template=HUB_MISTRAL, json_only=True,
                         tokenizer=dict(legacy=True, add_prefix_space=False)),
}
# images, preprocessing, question, whether decode logits are kept
CASES = [(["wide"], "crop", "What is in the image?", True),
         (["tall"], "pad", "Please help me describe the image in detail.", False),
         (["large", "tall"], "crop", "Is there a dog in the image?", True),
         ([], "crop", "Hello, 12 birds", False)]


def build(name, spec, seed):
    kind = (LlavaNextConfig, LlavaNextForConditionalGeneration) if spec.get("next") else (LlavaConfig,
                                                                                          LlavaForConditionalGeneration)
    more = dict(image_grid_pinpoints=PINPOINTS) if spec.get("next") else {}
    config = kind[0](vision_config=vision_config(**spec.get("vision", {})), text_config=spec["text"], image_token_index=412,
                     vision_feature_layer=spec.get("feature_layer", -2), vision_feature_select_strategy="default",
                     tie_word_embeddings=spec["text"].tie_word_embeddings, **more)
    model = kind[1](config).eval()
    model.set_attn_implementation("eager")
    randomise(model, seed)
    dtype = getattr(torch, spec["dtype"])
    with torch.no_grad():       # what is computed is what is stored
        for p in model.parameters():
            p.copy_(p.to(dtype).float())
    return model


def stored_name(name, style):
    """In-memory name -> name in the file."""
    if style == "new":
        return name
    pairs = {"old": [("model.language_model.", "language_model.model."), ("lm_head.", "language_model.lm_head."),
                     ("model.vision_tower.", "vision_tower."), ("model.multi_modal_projector.", "multi_modal_projector."),
                     ("model.image_newline", "image_newline")],
             "original": [("model.language_model.", "model."), ("lm_head.", "lm_head."),
                          ("model.multi_modal_projector.linear_1", "model.mm_projector.0"),
                          ("model.multi_modal_projector.linear_2", "model.mm_projector.2"),
                          ("model.vision_tower.", "clip:")]}[style]
    return next(b + name[len(a):] for a, b in pairs if name.startswith(a))


def write_weights(folder, tensors, shards):
    from safetensors.torch import save_file as save
    names = sorted(tensors)
    if shards == 1:
        return save(tensors, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    where = {}
    for i in range(shards):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        part = names[i::shards]
        save({n: tensors[n] for n in part}, os.path.join(folder, file), metadata={"format": "pt"})
        where.update({n: file for n in part})
    with open(os.path.join(folder, "model.safetensors.index.json"), "w", encoding="utf-8") as f:
        json.dump(dict(metadata=dict(total_size=sum(t.numel() * t.element_size() for t in tensors.values())),
                       weight_map=where), f, indent=1)


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, indent=2)
        f.write("\n")


def write_model(root, name, spec, model, tok, processor):
    """The directory (two for the original layout)."""
    folder = os.path.join(root, name)
    dtype = getattr(torch, spec["dtype"])
    tensors = {stored_name(k, spec["names"]): v.detach().to(dtype).contiguous() for k, v in model.state_dict().items()
               if "position_ids" not in k and not (k == "lm_head.weight" and spec["text"].tie_word_embeddings)}
    model.config.dtype = dtype
    if spec["names"] == "original":
        text = spec["text"].to_dict()
        keep = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
                "vocab_size", "max_position_embeddings", "rms_norm_eps", "hidden_act", "bos_token_id", "eos_token_id")
        write_json(os.path.join(folder, "config.json"), dict(
            {k: text[k] for k in keep}, architectures=["LlavaLlamaForCausalLM"], model_type="llava",
            mm_vision_tower="openai/clip-vit-tiny", mm_projector_type="mlp2x_gelu", mm_vision_select_layer=-2,
            mm_vision_select_feature="patch", mm_hidden_size=32, mm_use_im_patch_token=False, mm_use_im_start_end=False,
            image_aspect_ratio="pad", rope_scaling=None, tie_word_embeddings=False, torch_dtype="float16", use_cache=True))
        clip = os.path.join(root, name + "_clip")
        os.makedirs(clip, exist_ok=True)
        write_json(os.path.join(clip, "config.json"), dict(
            architectures=["CLIPModel"], model_type="clip", projection_dim=16, text_config=dict(model_type="clip_text_model"),
            vision_config=dict(model.config.vision_config.to_diff_dict(), model_type="clip_vision_model")))
        processor.image_processor.save_pretrained(clip)
        write_weights(clip, {k[5:]: v for k, v in tensors.items() if k.startswith("clip:")}, 1)
        tensors = {k: v for k, v in tensors.items() if not k.startswith("clip:")}
        tok.save_pretrained(folder)
    else:
        model.config.save_pretrained(folder)
        model.generation_config.save_pretrained(folder)
        processor.save_pretrained(folder)
    if spec.get("json_only"):
        os.remove(os.path.join(folder, "tokenizer.model"))
    write_weights(folder, tensors, spec.get("shards", 1))


def original_ids(tok, text, n_image):
    """tokenizer_image_token of the original LLaVA: chunks by themselves, one BOS; image tokens already expanded."""
    chunks = [tok(c).input_ids for c in text.split(IMAGE)]
    ids = list(chunks[0])
    for c in chunks[1:]:
        ids += [412] * n_image + c[1:]
    return ids


def run_case(model, spec, tok, processor, pictures, case, out, label):
    names, mode, question, keep = case
    ims = [pictures[n] for n in names]
    if mode == "pad" and not spec.get("next"):
        ims = [square(im, processor.image_processor.image_mean) for im in ims]
    if spec["names"] == "original":
        text = ("A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
                f"detailed, and polite answers to the user's questions. USER: {(IMAGE + chr(10)) * len(ims)}{question} ASSISTANT:")
    else:
        content = [dict(type="image")] * len(ims) + [dict(type="text", text=question)]
        text = processor.apply_chat_template([dict(role="user", content=content)], add_generation_prompt=True)
    batch = processor(images=ims or None, text=text, return_tensors="pt")
    ids = batch.input_ids
    if spec["names"] == "original":
        ids = torch.tensor([original_ids(tok, text, (56 // 14) ** 2)])
    extra = {k: batch[k] for k in ("pixel_values", "image_sizes") if k in batch}
    seen = {}
    with torch.no_grad():
        if ims:
            pixels = batch.pixel_values.float()
            if spec.get("next"):
                sizes = [min(len(p), 1 + tiles(im)) for p, im in zip(pixels, ims)]
                views = torch.cat([p[:n] for p, n in zip(pixels, sizes)])
            else:
                views = pixels
            seen["pixels"] = views
            hidden = model.model.vision_tower(views[:1], output_hidden_states=True).hidden_states
            if label.endswith("0"):
                seen.update({f"vision_hidden.{i}": h[0] for i, h in enumerate(hidden)})
            features = model.model.get_image_features(**extra, vision_feature_layer=spec.get("feature_layer", -2),
                                                      vision_feature_select_strategy="default")
            if spec.get("next"):
                features, _ = model.model.pack_image_features(
                    features, batch.image_sizes, vision_feature_select_strategy="default",
                    image_newline=model.model.image_newline) if not isinstance(features, torch.Tensor) and \
                    features[0].dim() == 3 else (features, None)
            seen["visual_tokens"] = torch.cat([f.reshape(-1, f.shape[-1]) for f in features])
        current, greedy, steps = ids, [], []
        for i in range(STEPS + 1):
            out_i = model(input_ids=current, attention_mask=torch.ones_like(current), **extra, use_cache=False,
                          output_hidden_states=True)
            logits = out_i.logits[0]
            if i == 0 and label.endswith("0"):      # the last one is normed, which is not what the layer gave
                seen.update({f"text_hidden.{k}": h[0] for k, h in enumerate(out_i.hidden_states[:-1])})
            if i == 0:
                seen["prefill_logits"] = logits if label.endswith("0") else logits[-1:]
            else:
                steps.append(logits[-1])
            top = logits[-1].topk(2)
            if top.values[0] - top.values[1] < 0.01 or top.indices[0] == 412:
                return False
            greedy.append(int(top.indices[0]))
            current = torch.cat([current, top.indices[:1][None]], 1)
        if keep:
            seen["decode_logits"] = torch.stack(steps)
    out.update({f"{label}.{k}": v.numpy().astype(np.float32) for k, v in seen.items()})
    out[f"{label}.input_ids"] = ids[0].numpy().astype(np.int32)
    out[f"{label}.greedy_ids"] = np.array(greedy, np.int32)
    return dict(images=[n + ".png" for n in names], preprocess="auto" if spec.get("next") else mode, question=question,
                text=text)


def tiles(im):
    from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape
    h, w = get_anyres_image_grid_shape((im.size[1], im.size[0]), PINPOINTS, 56)
    return h * w


def make(root):
    pictures = images()
    os.makedirs(os.path.join(root, "images"), exist_ok=True)
    for n, im in pictures.items():
        im.save(os.path.join(root, "images", n + ".png"))
    summary = {}
    for name, spec in MODELS.items():
        folder = os.path.join(root, name)
        tok = tokenizer_files(folder, spec.get("model_only", False), spec.get("tokenizer", HUB_TOKENIZER))
        size = spec.get("vision", {}).get("image_size", 56)
        kind = (LlavaNextImageProcessor, LlavaNextProcessor) if spec.get("next") else (CLIPImageProcessor, LlavaProcessor)
        more = dict(image_grid_pinpoints=PINPOINTS) if spec.get("next") else {}
        ip = kind[0](size={"shortest_edge": size}, crop_size={"height": size, "width": size}, **more)
        processor = kind[1](ip, tok, patch_size=14, vision_feature_select_strategy="default", image_token=IMAGE,
                            chat_template=spec.get("template"), num_additional_image_tokens=1)
        for seed in range(1, 200):
            model, out, cases = build(name, spec, seed), {}, []
            for i, case in enumerate(CASES):
                one = run_case(model, spec, tok, processor, pictures, case, out, f"case{i}")
                if not one:
                    break
                cases.append(one)
            if len(cases) == len(CASES):
                break
        else:
            sys.exit(f"{name}: no seed without near ties")
        write_model(root, name, spec, model, tok, processor)
        save_file(out, os.path.join(root, name + ".safetensors"))
        summary[name] = dict(
            seed=seed, image_token=412, dtype=spec["dtype"], cases=cases,
            mmproj=name + "_clip" if spec["names"] == "original" else None,
            tokenizer=[dict(text=t, ids=tok(t).input_ids) for t in AWKWARD if "\x00" not in t])
        print(name, "seed", seed, sum(os.path.getsize(os.path.join(folder, f)) for f in os.listdir(folder)), "bytes", flush=True)
    write_json(os.path.join(root, "cases.json"), summary)


def check(root):
    """Makes everything again and compares: files of numbers to 1e-5, the others byte for byte."""
    with tempfile.TemporaryDirectory() as again:
        make(again)
        for base, _, files in os.walk(again):
            for f in files:
                a = os.path.join(base, f)
                b = os.path.join(root, os.path.relpath(a, again))
                if f.endswith(".safetensors") and os.path.dirname(a) == again:
                    x, y = load_file(a), load_file(b)
                    assert x.keys() == y.keys(), b
                    worst = max(float(np.abs(x[k].astype(np.float64) - y[k]).max(initial=0)) for k in x)
                    assert worst < 1e-5, (b, worst)
                else:
                    assert filecmp.cmp(a, b, False), b
    print("the same")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--check", action="store_true")
    args = ap.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    root = os.path.join(HERE, "hf")
    if args.check:
        return check(root)
    shutil.rmtree(root, ignore_errors=True)
    make(root)


if __name__ == "__main__":
    main()
