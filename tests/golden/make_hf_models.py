#!/usr/bin/env python3
"""Makes tests/golden/hf: tiny random LLaVA models in every Hugging Face layout, and what transformers computes for them.

    python3 -m venv venv && venv/bin/pip install -r tests/golden/requirements-hf.txt
    venv/bin/python tests/golden/make_hf_models.py              # write everything anew
    venv/bin/python tests/golden/make_hf_models.py --check      # rebuild elsewhere and compare with the committed files

NAME/                        a model directory (liuhaotian/ needs liuhaotian_clip/, as the original LLaVA does)
images/*.png                 inputs
pixels.expected.safetensors  preprocessed images, "IMAGE.MODE.SIZE" (tiles, 3, SIZE, SIZE); MODE crop (Hugging Face), pad
                             (original LLaVA) or anyres (LLaVA-NeXT: overview first, then the tiles row by row).  Shared:
                             "pixels" of a case lists the tensors whose concatenation along axis 0 is its pixel_values.
cases.json                   per model its cases, prompts and what its tokenizer makes of awkward strings
NAME.expected.safetensors    for every case i, float32 arithmetic on the stored weights, eager attention:
  caseI.input_ids            (T) int32 with BOS, image placeholder expanded (liuhaotian: -200 at image positions)
  caseI.image_sizes          (images, 2) int32 height, width; NeXT only
  caseI.vision_hidden.L      (tiles, 1 + patches, width) of the first image, L = 0 (after pre_layrnorm) .. layers;
                             cases 0 and 1 only
  caseI.visual_tokens        (rows, hidden) what replaces the placeholders, all images in order, newline rows included
  caseI.prefill_positions    (P) int32, ascending, ending in T - 1
  caseI.prefill_logits       (P, vocab) logits at these positions
  caseI.greedy_ids           (33) int32: [0] is the argmax of the last prefill row; EOS does not stop
  caseI.decode_logits        (32, vocab): row k is computed after feeding greedy_ids[k]; its argmax is greedy_ids[k + 1]
Every greedy choice leads by more than 0.01, so that other summation orders choose alike.
"""
import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", TOKENIZERS_PARALLELISM="false")

import numpy as np                                                  # noqa: E402
import torch                                                        # noqa: E402
import transformers as tf                                           # noqa: E402
from PIL import Image                                               # noqa: E402
from safetensors.torch import load_file, save_file                  # noqa: E402
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches   # noqa: E402

import hf_parts as parts                                            # noqa: E402

ROOT = Path(__file__).resolve().parent / "hf"
IMAGE_ID, PAD_ID = 400, 401
STEPS = 32
PINPOINTS = [[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]]
NEW_NAMES = [("language_model.model.", "model.language_model."), ("language_model.lm_head", "lm_head"),
             ("vision_tower.", "model.vision_tower."), ("multi_modal_projector.", "model.multi_modal_projector."),
             ("image_newline", "model.image_newline")]

LLAVA_CASES = [
    (["wide"], "crop", "What is in the image?"), (["tall"], "pad", "Is there a dog? Answer yes or no."),
    (["large", "square"], "crop", "Compare both  images."), ([], "none", "Wie groß ist der Baum? 12 m")]
PAD_CASES = [
    (["wide"], "pad", "What is in the image?"), (["tall"], "pad", "Is there a dog? Answer yes or no."),
    (["tall", "square"], "pad", "Compare both images."), ([], "none", "Tell me a joke.")]
NEXT_CASES = [
    (["wide"], "anyres", "What is in the image?"), (["tall"], "anyres", "Is there a dog? Answer yes or no."),
    (["large"], "anyres", "Describe it:\n- colour\n- size"), (["strip", "tall"], "anyres", "Compare both images."),
    ([], "none", "Tell me a joke.")]


def llama(**keys):
    return tf.LlamaConfig(**{**dict(
        vocab_size=416, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=3,
        rms_norm_eps=1e-5, max_position_embeddings=1024, tie_word_embeddings=False), **keys})


def mistral(**keys):
    return tf.MistralConfig(**{**dict(
        vocab_size=416, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, rms_norm_eps=1e-5, max_position_embeddings=1024, tie_word_embeddings=False), **keys})


def vision(**keys):
    return tf.CLIPVisionConfig(**{**dict(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, image_size=56, patch_size=14,
        projection_dim=24), **keys})


# tokens: the tokenizer files kept.  names and jinja: the layout of old (False) or new (True) versions of transformers.
MODELS = {
    "llava15_mha": dict(text=llama(), vision=vision(), dtype="float32", new=False, tokens="both", template="llava15",
                        cases=LLAVA_CASES, seed=106),
    "llava15_gqa": dict(text=mistral(vocab_size=448, head_dim=24, sliding_window=512),
                        vision=vision(image_size=70, num_hidden_layers=4, num_attention_heads=4), dtype="bfloat16",
                        new=True, shard="170KB", tokens="json", template="mistral", cases=LLAVA_CASES, seed=201),
    "llava15_tied": dict(text=llama(num_attention_heads=6, num_hidden_layers=3, rope_theta=1e6,
                                    rope_scaling={"rope_type": "linear", "factor": 2.0}, tie_word_embeddings=True),
                         vision=vision(hidden_act="gelu"), dtype="float16", new=False, tokens="model",
                         template="llava15", cases=LLAVA_CASES, layer=-1, seed=312),
    "liuhaotian": dict(text=llama(intermediate_size=112), vision=vision(), dtype="float16", tokens="liuhaotian",
                       cases=PAD_CASES, seed=404),
    "next_vicuna": dict(text=llama(), vision=vision(), dtype="float32", new=True, tokens="both", legacy=False,
                        template="vicuna", cases=NEXT_CASES, next=True, seed=514),
    "next_mistral": dict(text=mistral(rope_theta=1e6, sliding_window=None), vision=vision(), dtype="float16",
                         new=False, tokens="both", template="mistral", cases=NEXT_CASES, next=True, seed=607),
}


def make_tokenizer(spm_file, kind, legacy):
    """The tokenizer as llava-hf's conversion script makes it; the fast one is converted from the SentencePiece model."""
    if kind in ("model", "liuhaotian"):
        tok = tf.LlamaTokenizer(str(spm_file), legacy=legacy)
    else:
        tok = tf.LlamaTokenizerFast(str(spm_file), legacy=legacy, padding_side="left", from_slow=True)
    if kind != "liuhaotian":
        tok.add_tokens(tf.AddedToken("<image>", special=True, normalized=False), special_tokens=True)
        tok.add_special_tokens({"pad_token": "<pad>"})
        assert tok.convert_tokens_to_ids(["<image>", "<pad>"]) == [IMAGE_ID, PAD_ID]
    assert tok.convert_tokens_to_ids(["<unk>", "<s>", "</s>"]) == [0, 1, 2]
    return tok


def image_processor(spec):
    size = spec["vision"].image_size
    keys = dict(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    if spec.get("next"):
        return tf.LlavaNextImageProcessor(image_grid_pinpoints=PINPOINTS, **keys)
    return tf.CLIPImageProcessor(**keys)


def make_processor(spec, images, tokenizer):
    keys = dict(patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1,
                chat_template=parts.TEMPLATES.get(spec.get("template")))
    return (tf.LlavaNextProcessor if spec.get("next") else tf.LlavaProcessor)(images, tokenizer, **keys)


def make_model(spec):
    keys = dict(text_config=spec["text"], vision_config=spec["vision"], image_token_index=IMAGE_ID, pad_token_id=PAD_ID,
                vision_feature_layer=spec.get("layer", -2), attn_implementation="eager")
    tied = spec["text"].tie_word_embeddings
    if spec.get("next"):
        config = tf.LlavaNextConfig(image_grid_pinpoints=PINPOINTS, **keys)
        model = tf.LlavaNextForConditionalGeneration(config)
    else:
        config = tf.LlavaConfig(image_seq_length=(spec["vision"].image_size // 14) ** 2, tie_word_embeddings=tied, **keys)
        model = tf.LlavaForConditionalGeneration(config)
    parts.randomise(model, spec["seed"], tied)
    parts.damp_special_rows(model, IMAGE_ID, tied)
    model.generation_config = tf.GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=PAD_ID)
    return model.to(getattr(torch, spec["dtype"])).eval()


def rename_tensors(folder):
    """save_pretrained still writes the old names; newer versions of transformers write those of the modules."""
    for path in sorted(folder.glob("*.safetensors")):
        save_file({new_name(k): v for k, v in load_file(path).items()}, path, metadata={"format": "pt"})
    path = folder / "model.safetensors.index.json"
    if path.exists():
        index = json.loads(path.read_text())
        index["weight_map"] = {new_name(k): v for k, v in index["weight_map"].items()}
        parts.write_json(path, index)


def new_name(name):
    return next(new + name[len(old):] for old, new in NEW_NAMES if name.startswith(old))


def hub_style(path):
    """config.json as on the hub: torch_dtype, and sub-configs without what equals the class defaults."""
    config = json.loads(path.read_text())
    for part in ("text_config", "vision_config"):
        defaults = tf.AutoConfig.for_model(config[part]["model_type"])
        heads = config[part]["num_attention_heads"]
        implied = {"num_key_value_heads": heads, "head_dim": config[part]["hidden_size"] // heads}
        if config[part]["model_type"] == "mistral":
            del implied["num_key_value_heads"]      # absent means 8 there
        config[part] = {k: v for k, v in config[part].items() if k == "model_type" or v != getattr(
            defaults, k, None) and v != implied.get(k) and k != "dtype"}
    config["torch_dtype"] = config.pop("dtype")
    config["ignore_index"] = -100
    parts.write_json(path, dict(sorted(config.items())))


def save_hf(spec, folder, spm_file):
    """Writes the directory, reads it back in float32 and makes sure that nothing was lost."""
    made = make_model(spec)
    made.save_pretrained(folder, max_shard_size=spec.get("shard", "5GB"))
    tokenizer = make_tokenizer(spm_file, spec["tokens"], spec.get("legacy", True))
    make_processor(spec, image_processor(spec), tokenizer).save_pretrained(folder, save_jinja_files=spec["new"])
    if spec["tokens"] == "json":
        (folder / "tokenizer.model").unlink()
    if spec["new"]:
        rename_tensors(folder)
    else:
        hub_style(folder / "config.json")
    model, info = type(made).from_pretrained(folder, dtype=torch.float32, attn_implementation="eager",
                                             output_loading_info=True)
    assert not any(info.values()), info
    for (name, a), (_, b) in zip(made.named_parameters(), model.named_parameters(), strict=True):
        assert torch.equal(a.float(), b), name
    slow = spec["tokens"] == "model"
    tokenizer = (tf.LlamaTokenizer if slow else tf.LlamaTokenizerFast).from_pretrained(folder)
    images = type(image_processor(spec)).from_pretrained(folder)
    processor = make_processor(spec, images, tokenizer)
    automatic = tf.AutoProcessor.from_pretrained(folder)
    assert automatic.chat_template == processor.chat_template and automatic.patch_size == processor.patch_size
    return model.eval(), processor


def save_liuhaotian(spec, folder, spm_file):
    """The original layout in two directories; the returned model is its equivalent in memory."""
    model = make_model(spec)
    clip = folder.with_name(folder.name + "_clip")
    for path in (folder, clip):
        path.mkdir(parents=True)
    language, tower = {}, {}
    for name, p in model.state_dict().items():
        if name.startswith("model.vision_tower."):
            tower[name.removeprefix("model.vision_tower.")] = p.float()     # openai's repository is float32
        elif name.startswith("model.multi_modal_projector."):
            layer = name.removeprefix("model.multi_modal_projector.linear_").split(".")
            language[f"model.mm_projector.{2 * int(layer[0]) - 2}.{layer[1]}"] = p
        else:
            name = name.replace("model.language_model.", "model.")
            language[name] = p[:IMAGE_ID].clone() if "embed_tokens" in name or "lm_head" in name else p
    tower["vision_model.embeddings.position_ids"] = torch.arange(17)[None]  # old files carry this int64 buffer
    tower["visual_projection.weight"] = torch.zeros(spec["vision"].projection_dim, spec["vision"].hidden_size)
    tower["logit_scale"] = torch.tensor(4.6052)
    save_file(language, folder / "model.safetensors", metadata={"format": "pt"})
    save_file(tower, clip / "model.safetensors", metadata={"format": "pt"})
    config, preprocessor = parts.clip_configs(spec["vision"])
    parts.write_json(clip / "config.json", config)
    parts.write_json(clip / "preprocessor_config.json", preprocessor)
    parts.write_json(folder / "config.json",
                     parts.liuhaotian_config(spec["text"], "../liuhaotian_clip", spec["vision"].hidden_size))
    parts.write_json(folder / "generation_config.json",
                     dict(bos_token_id=1, eos_token_id=2, max_length=4096, pad_token_id=0, transformers_version="4.31.0"))
    make_tokenizer(spm_file, "liuhaotian", True).save_pretrained(folder)
    read = tf.CLIPVisionModel.from_pretrained(clip, attn_implementation="eager").eval()
    probe = torch.linspace(-2, 2, 3 * 56 * 56).reshape(1, 3, 56, 56)
    with torch.no_grad():
        model = model.float()
        assert torch.equal(read(probe).last_hidden_state, model.model.vision_tower(probe).last_hidden_state)
    images = tf.CLIPImageProcessor.from_pretrained(clip)
    return model, make_processor(spec, images, tf.LlamaTokenizer.from_pretrained(folder))


def chunked_ids(tokenizer, prompt):
    """LLaVA's own tokenisation: every text between placeholders by itself, one BOS, -200 for an image."""
    chunks = [tokenizer(chunk).input_ids for chunk in prompt.split("<image>")]
    ids = list(chunks[0])
    for chunk in chunks[1:]:
        ids += [-200] + chunk[1:]
    return ids


def rendered_prompt(spec, processor, text, count):
    if "template" not in spec:
        return f"{parts.SYSTEM} USER: " + "<image>\n" * count + f"{text} ASSISTANT:"
    content = [{"type": "text", "text": text}] + [{"type": "image"}] * count
    return processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)


def prepare(spec, processor, names, mode, prompt, folder):
    """Token ids (the model's own, and as recorded) and pixel values of one case, through the HF processor."""
    pictures = [Image.open(folder / f"{name}.png").convert("RGB") for name in names]
    if mode == "pad":
        size = spec["vision"].image_size
        padding = tf.LlavaImageProcessor(do_pad=True, size={"shortest_edge": size},
                                         crop_size={"height": size, "width": size})
        theirs = padding(pictures, return_tensors="pt").pixel_values
        pictures = [parts.expand_to_square(picture) for picture in pictures]
        assert torch.equal(theirs, processor.image_processor(pictures, return_tensors="pt").pixel_values)
    if spec["tokens"] == "liuhaotian":
        inputs = dict(processor.image_processor(pictures, return_tensors="pt")) if pictures else {}
        patches = (spec["vision"].image_size // 14) ** 2
        ids = [[i] * (patches if i < 0 else 1) for i in chunked_ids(processor.tokenizer, prompt)]
        recorded = torch.tensor(sum(ids, []))
        inputs["input_ids"] = torch.where(recorded < 0, IMAGE_ID, recorded)[None]
    else:
        inputs = dict(processor(images=pictures or None, text=prompt, return_tensors="pt"))
        inputs.pop("attention_mask")
        recorded = inputs["input_ids"][0]
    pixels = []
    if names and mode == "anyres":
        tiles = [image_size_to_num_patches(s, PINPOINTS, spec["vision"].image_size) for s in inputs["image_sizes"]]
        pixels = [p[:n] for p, n in zip(inputs["pixel_values"], tiles, strict=True)]
    elif names:
        pixels = list(inputs["pixel_values"][:, None])
    return inputs, recorded, pixels


@torch.no_grad()
def record(model, inputs, first_image, vocab, every):
    """Everything recorded for one case but the ids."""
    out, result = model(**inputs, use_cache=True), {}
    if first_image is not None:
        for k, hidden in enumerate(model.model.vision_tower(first_image, output_hidden_states=True).hidden_states):
            result[f"vision_hidden.{k}"] = hidden
    if "pixel_values" in inputs:
        result["visual_tokens"] = out.image_hidden_states.reshape(-1, out.image_hidden_states.shape[-1])
    logits = out.logits[0, :, :vocab]
    length = len(logits)
    kept = [k for k in range(length) if k % every == every - 1 or k >= length - 4]
    result["prefill_positions"] = torch.tensor(kept)
    result["prefill_logits"] = logits[kept]
    row, chosen, rows = logits[-1], [], []
    for step in range(STEPS + 1):
        best = row.topk(2).values
        assert best[0] - best[1] > 0.01, f"tie at step {step}: {best}"
        chosen.append(int(row.argmax()))
        if step < STEPS:
            out = model(input_ids=torch.tensor([chosen[-1:]]), past_key_values=out.past_key_values, use_cache=True)
            row = out.logits[0, -1, :vocab]
            rows.append(row)
    result["greedy_ids"], result["decode_logits"] = torch.tensor(chosen), torch.stack(rows)
    assert len(set(chosen)) >= 8 and max(chosen) < IMAGE_ID, f"dull answer: {chosen}"
    whole = torch.cat([inputs["input_ids"], torch.tensor([chosen[:STEPS]])], dim=1)
    again = model(**{**inputs, "input_ids": whole}, use_cache=False).logits[0, length:, :vocab]
    assert (again - result["decode_logits"]).abs().max() < 1e-4, "cache and no cache differ"
    assert 1.5 < logits.std() < 4, logits.std()
    return result


def tokenizer_tests(spec, processor, spm_file):
    tests, tok = [], processor.tokenizer
    other = make_tokenizer(spm_file, spec["tokens"], False) if spec["tokens"] in ("model", "liuhaotian") else None
    for text in parts.STRINGS:
        test = dict(text=text, ids=tok(text).input_ids)
        if other:
            test["ids_legacy_false"] = other(text).input_ids
        if spec["tokens"] == "liuhaotian":
            test["ids_chunked"] = chunked_ids(tok, text)
        tests.append(test)
    return tests


def build(name, root, shared):
    spec, spm_file = MODELS[name], root / "spm.model"
    save = save_liuhaotian if spec["tokens"] == "liuhaotian" else save_hf
    model, processor = save(spec, root / name, spm_file)
    tensors, cases, size = {}, [], spec["vision"].image_size
    for i, (names, mode, text) in enumerate(spec["cases"]):
        prompt = rendered_prompt(spec, processor, text, len(names))
        inputs, ids, pixels = prepare(spec, processor, names, mode, prompt, root / "images")
        keys = [f"{n}.{'crop' if n == 'square' and mode == 'pad' else mode}.{size}" for n in names]
        for key, value in zip(keys, pixels, strict=True):
            assert torch.equal(shared.setdefault(key, value), value), key
        vocab = IMAGE_ID if spec["tokens"] == "liuhaotian" else spec["text"].vocab_size
        result = record(model, inputs, pixels[0] if names and i < 2 else None, vocab, 1 if i == 0 else 8)
        result["input_ids"] = ids
        if "image_sizes" in inputs:
            result["image_sizes"] = inputs["image_sizes"]
        for key, value in result.items():
            tensors[f"case{i}.{key}"] = value.to(torch.float32 if value.is_floating_point() else torch.int32).contiguous()
        cases.append(dict(images=[f"{n}.png" for n in names], preprocess=mode, pixels=keys, text=text, prompt=prompt))
        if spec["tokens"] == "liuhaotian":
            cases[-1]["prompt_ids"] = chunked_ids(processor.tokenizer, prompt)
    save_file(tensors, root / f"{name}.expected.safetensors")
    tok = processor.tokenizer
    return dict(template=spec.get("template", "vicuna_v1"), tokenizer=type(tok).__name__, legacy=spec.get("legacy", True),
                feature_layer=spec.get("layer", -2), cases=cases, tokenizer_tests=tokenizer_tests(spec, processor, spm_file))


def build_all(root, names):
    root.mkdir(parents=True, exist_ok=True)
    parts.make_images(root / "images")
    (root / "spm.model").write_bytes(parts.train_spm())
    shared, models = {}, {}
    for name in names:
        for path in (root / name, root / f"{name}_clip"):
            shutil.rmtree(path, ignore_errors=True)
        models[name] = build(name, root, shared)
        print("made", name, flush=True)
    (root / "spm.model").unlink()
    save_file({k: v.contiguous() for k, v in shared.items()}, root / "pixels.expected.safetensors")
    versions = dict(torch=torch.__version__, transformers=tf.__version__)
    text = json.dumps(dict(versions=versions, models=models), ensure_ascii=False, indent=1)
    (root / "cases.json").write_text(text + "\n", encoding="utf-8")


def compare(fresh, committed):
    """Weights and texts are equal, pictures have equal pixels, results agree to 1e-6 (relative above 1)."""
    files = sorted(p.relative_to(fresh) for p in fresh.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(committed) for p in committed.rglob("*") if p.is_file()), "other files"
    worst = 0.0
    for path in files:
        if path.name.endswith(".expected.safetensors"):
            a, b = load_file(fresh / path), load_file(committed / path)
            assert a.keys() == b.keys(), path
            for key in a:
                error = (a[key] - b[key]).abs() / b[key].abs().clamp(min=1)
                worst = max(worst, float(error.max()))
                assert a[key].dtype == b[key].dtype and error.max() <= 1e-6, (path, key, float(error.max()))
        elif path.suffix == ".png":
            assert np.array_equal(*(np.asarray(Image.open(d / path)) for d in (fresh, committed))), path
        else:
            assert (fresh / path).read_bytes() == (committed / path).read_bytes(), path
    print(f"{len(files)} files agree, largest difference {worst:.2g}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="rebuild in a temporary folder and compare")
    parser.add_argument("--out", type=Path, default=ROOT, help="folder to write (default: tests/golden/hf)")
    parser.add_argument("--only", nargs="*", default=list(MODELS), help="models to build (default: all)")
    args = parser.parse_args()
    assert tf.__version__ == "4.57.6", tf.__version__
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    if not args.check:
        return build_all(args.out, args.only)
    with tempfile.TemporaryDirectory() as folder:
        build_all(Path(folder) / "hf", list(MODELS))
        compare(Path(folder) / "hf", ROOT)


if __name__ == "__main__":
    main()
