"""What the tests of candid.hf have in common: models, prompts, recorded cases.  Exits with 77 where transformers is missing."""
from __future__ import annotations

import functools
import json
import logging
import os
import sys
import unittest

try:
    import torch
    import transformers
    from PIL import Image
    from safetensors.torch import load_file
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

from transformers import CLIPImageProcessor, LlavaForConditionalGeneration, LlavaProcessor, PreTrainedTokenizerFast

import candid.hf

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
logging.getLogger("candid").setLevel(logging.ERROR)    # "not known to be trained with …": known
torch.set_num_threads(1)

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", ".."))
GOLDEN = os.path.join(ROOT, "tests", "golden")
CONVERSATION = "USER: <image>\n{prompt} ASSISTANT:"
DEMO = "models/demo-hf"
DESCRIBE = "Please help me describe the image in detail."


def path(*parts: str) -> str:
    return os.path.join(ROOT, *parts)


def scene(number: int) -> Image.Image:
    return Image.open(path("models/demo/heldout/images", f"scene_{number:06d}.png")).convert("RGB")


def new_model(folder: str = DEMO, **options):
    """A model of its own, to be changed."""
    return LlavaForConditionalGeneration.from_pretrained(path(folder), **{"dtype": torch.float32, **options}).eval()


_made = {}


def model_of(folder: str = DEMO):
    if folder not in _made:
        _made[folder] = new_model(folder)
    return _made[folder]


def processor_of(folder: str = DEMO):
    return _processor(folder)


@functools.lru_cache(maxsize=None)
def _processor(folder: str):
    config = model_of(folder).config
    return LlavaProcessor(
        CLIPImageProcessor.from_pretrained(path(folder)),
        PreTrainedTokenizerFast(tokenizer_file=path(folder, "tokenizer.json"), pad_token="<pad>", padding_side="left",
                                model_input_names=["input_ids", "attention_mask"]),
        image_token="<image>", num_additional_image_tokens=1, patch_size=config.vision_config.patch_size,
        vision_feature_select_strategy="default", chat_template=None)


def prompt(images, question: str = DESCRIBE, folder: str = DEMO):
    return candid.hf.inputs(processor_of(folder), images, question, CONVERSATION)


def attach(config=None, folder: str = DEMO, model=None, **options):
    return candid.hf.attach(model or model_of(folder), config, processor=processor_of(folder), conversation=CONVERSATION,
                            **options)


def cases(folder: str):
    with open(os.path.join(GOLDEN, folder, "cases.json"), encoding="utf-8") as f:
        return json.load(f)


@functools.lru_cache(maxsize=None)
def tensors(folder: str, name: str):
    return load_file(os.path.join(GOLDEN, folder, name + ".safetensors"))


def case_inputs(case):
    image = Image.open(path(case["image"])).convert("RGB")
    out = prompt(image, case["prompt"], case["model"])
    return out


def run() -> None:
    unittest.main(verbosity=2)
