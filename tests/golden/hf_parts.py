"""Building blocks of make_hf_models.py: corpus and SentencePiece model, awkward strings, chat templates, test images,
random weights, and the JSON files of liuhaotian's original repositories.
"""
import io
import json
import random

import numpy as np
import sentencepiece
import torch
from PIL import Image, ImageDraw

MEAN = [0.48145466, 0.4578275, 0.40821073]
STD = [0.26862954, 0.26130258, 0.27577711]
SYSTEM = ("A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
          "detailed, and polite answers to the user's questions.")

IMAGES = "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
TEXTS = "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
GENERATION = "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
TEMPLATES = {
    # llava-hf/llava-1.5-7b-hf
    "llava15": (
        "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}"
        "{# Render all images first #}" + IMAGES + "{# Render all text next #}{% if message['role'] != 'assistant' %}"
        + TEXTS + "{{ content['text'] + ' '}}{% endfor %}{% else %}" + TEXTS
        + "{% generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endif %}{% endfor %}"
        + GENERATION),
    # llava-hf/llava-v1.6-mistral-7b-hf, its odd '<\\s> ' included
    "mistral": (
        "{% for message in messages %}{% if message['role'] == 'system' %}"
        "{{ '<<SYS>>\n' + message['content'][0]['text'] + '\n<</SYS>>\n\n' }}{% elif message['role'] == 'user' %}"
        "{{ '[INST] ' }}{# Render all images first #}" + IMAGES + "{# Render all text next #}" + TEXTS
        + "{{ content['text'] }}{% endfor %}{{' [/INST]' }}{% elif message['role'] == 'assistant' %}"
        "{{ ' ' + message['content'][0]['text'] + '<\\\\s> '}}{% else %}"
        "{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"),
    # llava-hf's conversion scripts for vicuna
    "vicuna": (
        "{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'][0]['text'] }}"
        "{% else %}{{ message['role'].upper() + ': '}}{% endif %}{# Render all images first #}" + IMAGES
        + "{# Render all text next #}" + TEXTS + "{{ content['text'] + ' '}}{% endfor %}{% endfor %}" + GENERATION),
}

CORPUS = [
    SYSTEM, "USER: What is in the image? ASSISTANT: The image shows a red circle.",
    "USER: Is there a dog in the image? ASSISTANT: Yes, there is a dog.", "[INST] What is this? [/INST] It is a cat.",
    "The image shows a dog and a cat on the grass.", "There are 3 birds, 12 trees and 45 stones.",
    "A man is standing next to the river in the rain.", "The old house has 6 windows and 7 doors, built in 1890.",
    "In the background there is a large green tree.", "Two  spaces  between  the  words  of  this  line.",
    "    four spaces of indent    and four more", "Describe the image in detail.", "Please answer yes or no.",
    "How many people are there in this picture?", "The sky is blue, and the sun is shining on the water.",
    "Der große Hund läuft über die Straße.", "Ein schöner grüner Baum steht hinter dem Haus.",
    "Ärger, Öl und Übermut: das sind Wörter mit Umlauten.", "The cat sat on the mat; the dog ran after the ball.",
    "It's a photo of a woman with an umbrella.", "a table, a chair and a lamp",
    "the red one, the green one and the blue one", "Compare the first image with the second image.",
    "The quick brown fox jumps over the lazy dog.", "Where is the zebra? It is next to the tree.",
]

STRINGS = [
    "", " ", "  ", "   ", "Hello", " Hello", "  Hello", "Hello ", "Hello  ", "Hello world", "Hello  world",
    "Hello   big    world", "\n", "\n\n", "Hello\n", "\nHello", "Hello\nworld", "a\tb", "\t\tindent", "line\r\nend",
    "What is in the image?", "The image shows a dog and a cat.", "0123456789", "In 1890, 12.5% of 45", "3 birds",
    "Der große Hund läuft über die Straße", "naïve café", "e\u0301 combining", "日本語のテキスト", "Привет, мир",
    "\U0001f600", "a\U0001f469\u200d\U0001f4bbb", "\u2581", "a\u2581b", "\u2581\u2581a", "\u00a0nbsp\u3000wide",
    "<image>", "<image>\nWhat is this?", "USER: <image>\nWhat is this? ASSISTANT:", "text<image>text",
    "text <image> text", "<image><image>", "<image> <image>", "<image>\n<image>\nTwo", " <image> ", "[INST] <image>\nA",
    "Yes.</s>", "Yes.</s>No.", "Yes.</s> No.", "Yes. </s>  No.", "<s>Hello", "<s> Hello", "<unk>", "a<unk>b",
    "<pad><pad>a", "<0x41>", "<image", "< image>", "</s", "ASSISTANT: Yes.</s>USER: why? ASSISTANT:", "..!?;:",
    "supercalifragilistic", "    four spaces", "x\x00y", "\ufeffbom", "\u202eRTL", "a\x7f\x1bb", "\"quotes\" 'n' `ticks`",
]


def train_spm():
    """A SentencePiece model with LLaMA's settings, as bytes."""
    model = io.BytesIO()
    rng = random.Random(1)
    lines = [line for line in CORPUS for _ in range(rng.randint(2, 4))]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, model_type="bpe", vocab_size=400, byte_fallback=True,
        split_digits=True, add_dummy_prefix=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True, character_coverage=0.997, unk_id=0, bos_id=1, eos_id=2, pad_id=-1,
        num_threads=1, minloglevel=2)
    return model.getvalue()


def make_images(folder):
    """Small PNGs: a smooth gradient, some shapes, a little noise."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = dict(square=(60, 60), wide=(97, 41), tall=(33, 80), large=(200, 150), strip=(160, 40))
    for k, (name, (w, h)) in enumerate(sizes.items()):
        y, x = np.mgrid[0:h, 0:w]
        planes = [x * 255 // (w - 1), y * 255 // (h - 1), (x * 3 + y * 5 + 40 * k) % 256]
        pixels = np.stack(planes[k % 3:] + planes[:k % 3], axis=2).astype(np.uint8)
        image = Image.fromarray(pixels)
        draw = ImageDraw.Draw(image)
        draw.rectangle([w // 8, h // 6, w // 3, h // 2], fill=(250, 40 * k, 10))
        draw.ellipse([w // 2, h // 4, w * 7 // 8, h * 3 // 4], fill=(10, 200, 60 * k % 256))
        draw.line([0, h - 1, w - 1, 0], fill=(255, 255, 255), width=2)
        draw.polygon([(w // 2, h - 3), (w // 4, h * 2 // 3), (w * 3 // 4, h * 4 // 5)], fill=(30, 30, 160))
        image.save(folder / f"{name}.png", optimize=True)


def expand_to_square(image):
    """LLaVA's padding: the picture in the middle of a square of the mean colour."""
    w, h = image.size
    side = max(w, h)
    square = Image.new("RGB", (side, side), tuple(int(m * 255) for m in MEAN))
    square.paste(image, ((side - w) // 2, (side - h) // 2))
    return square


def randomise(model, seed, tied):
    """Weights that keep the signal alive: fan-in scaling, norms near one, logits with a spread of about 2.7."""
    gen = torch.Generator().manual_seed(seed)

    def normal(p, std):
        p.copy_(torch.randn(p.shape, generator=gen) * std)

    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            last = name.split(".")[-2]
            if "lm_head" in name:
                normal(p, 2.7 / p.shape[1] ** 0.5)
            elif "embed_tokens" in name:
                normal(p, 2.7 / p.shape[1] ** 0.5 if tied else 0.7)
            elif "class_embedding" in name or "position_embedding" in name or "image_newline" in name:
                normal(p, 0.6)
            elif "norm" in last or "layrnorm" in last:
                normal(p, 0.15)
                p.add_(1.0 if name.endswith("weight") else 0.0)
            elif name.endswith("bias"):
                normal(p, 0.2)
            elif "patch_embedding" in name:
                normal(p, 1.0 / p[0].numel() ** 0.5)
            else:
                normal(p, (1.5 if last in ("q_proj", "k_proj") else 1.1) / p.shape[1] ** 0.5)


def damp_special_rows(model, first, tied):
    """Makes sure that image, pad and padding rows never win."""
    with torch.no_grad():
        rows = model.model.language_model.embed_tokens.weight if tied else model.lm_head.weight
        rows[first:] *= 0.3


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def liuhaotian_config(text, tower, vision_width):
    """config.json of liuhaotian/llava-v1.5-7b."""
    return {
        "_name_or_path": "llava-v1.5-tiny", "architectures": ["LlavaLlamaForCausalLM"], "bos_token_id": 1,
        "eos_token_id": 2, "freeze_mm_mlp_adapter": False, "freeze_mm_vision_resampler": False, "hidden_act": "silu",
        "hidden_size": text.hidden_size, "image_aspect_ratio": "pad", "initializer_range": 0.02,
        "intermediate_size": text.intermediate_size, "max_length": 4096,
        "max_position_embeddings": text.max_position_embeddings, "mm_hidden_size": vision_width,
        "mm_projector_type": "mlp2x_gelu", "mm_resampler_type": None, "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False, "mm_vision_select_feature": "patch", "mm_vision_select_layer": -2,
        "mm_vision_tower": tower, "model_type": "llava", "num_attention_heads": text.num_attention_heads,
        "num_hidden_layers": text.num_hidden_layers, "num_key_value_heads": text.num_key_value_heads,
        "pad_token_id": 0, "pretraining_tp": 1, "rms_norm_eps": text.rms_norm_eps, "rope_scaling": None,
        "tie_word_embeddings": False, "torch_dtype": "float16", "transformers_version": "4.31.0",
        "tune_mm_mlp_adapter": False, "tune_mm_vision_resampler": False, "unfreeze_mm_vision_tower": False,
        "use_cache": True, "use_mm_proj": True, "vocab_size": 400}


def clip_configs(vision):
    """config.json and preprocessor_config.json of openai/clip-vit-large-patch14-336."""
    config = {
        "architectures": ["CLIPModel"], "initializer_factor": 1.0, "logit_scale_init_value": 2.6592,
        "model_type": "clip", "projection_dim": vision.projection_dim,
        "text_config": {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2,
                        "model_type": "clip_text_model", "projection_dim": vision.projection_dim},
        "torch_dtype": "float32", "transformers_version": "4.21.3",
        "vision_config": {
            "attention_dropout": 0.0, "dropout": 0.0, "hidden_act": "quick_gelu", "hidden_size": vision.hidden_size,
            "image_size": vision.image_size, "initializer_factor": 1.0, "initializer_range": 0.02,
            "intermediate_size": vision.intermediate_size, "layer_norm_eps": 1e-05, "model_type": "clip_vision_model",
            "num_attention_heads": vision.num_attention_heads, "num_channels": 3,
            "num_hidden_layers": vision.num_hidden_layers, "patch_size": vision.patch_size,
            "projection_dim": vision.projection_dim}}
    preprocessor = {
        "crop_size": vision.image_size, "do_center_crop": True, "do_normalize": True, "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor", "image_mean": MEAN, "image_std": STD, "resample": 3,
        "size": vision.image_size}
    return config, preprocessor
