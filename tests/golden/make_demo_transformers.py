"""Writes demo_transformers.json: greedy captions of the 200 held-out scenes by transformers from models/demo-hf, f32, with
both preprocessings (crop: the processor's own; pad: the original LLaVA's expand2square before it).

    python3 tests/golden/make_demo_transformers.py

Needs requirements-hf.txt.  Read by tests/cli/test_demo_hf.sh: `candid caption --precision exact` must say the same.
"""
import json
import os
import sys

import torch
from PIL import Image
from transformers import LlavaForConditionalGeneration, LlavaProcessor

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "..", "..")
sys.path.insert(0, HERE)
from make_hf_models import square    # noqa: E402

FOLDER = os.path.join(ROOT, "models", "demo-hf")
IMAGES = os.path.join(ROOT, "models", "demo", "heldout", "images")
PROMPT = "Please help me describe the image in detail."


def captions(model, processor, images):
    text = processor.apply_chat_template(
        [dict(role="user", content=[dict(type="image"), dict(type="text", text=PROMPT)])], add_generation_prompt=True)
    out = []
    for i in range(0, len(images), 25):
        batch = processor(images=images[i:i + 25], text=[text] * len(images[i:i + 25]), return_tensors="pt")
        with torch.no_grad():
            ids = model.generate(**batch, do_sample=False, max_new_tokens=160)
        new = ids[:, batch.input_ids.shape[1]:]
        out += [t.strip() for t in processor.batch_decode(new, skip_special_tokens=True)]
    return out


def main():
    torch.set_num_threads(1)
    model = LlavaForConditionalGeneration.from_pretrained(FOLDER, torch_dtype=torch.float32, attn_implementation="eager").eval()
    processor = LlavaProcessor.from_pretrained(FOLDER, use_fast=False)
    names = sorted(os.listdir(IMAGES))
    images = [Image.open(os.path.join(IMAGES, n)).convert("RGB") for n in names]
    mean = processor.image_processor.image_mean
    crop, pad = captions(model, processor, images), captions(model, processor, [square(im, mean) for im in images])
    print(sum(a != b for a, b in zip(crop, pad)), "captions differ between crop and pad")
    with open(os.path.join(HERE, "demo_transformers.json"), "w", encoding="utf-8") as f:
        json.dump(dict(prompt=PROMPT, crop=dict(zip(names, crop)), pad=dict(zip(names, pad))), f, indent=1, ensure_ascii=False)
        f.write("\n")


if __name__ == "__main__":
    main()
