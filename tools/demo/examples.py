"""Render the example images of examples/ (448 x 448) and write what the model says about them.

Usage: python3 tools/demo/examples.py models/demo/candid-demo.gguf
"""
import argparse
import json
import os

import numpy as np
import torch
from PIL import Image

import language
import scenes
from evaluate import FORMS, MENTION
from export import CONVERSATION, load_gguf
from generate import generate

SEEDS = (4, 9, 28, 44, 47, 31)     # the last one shows a hallucination


def mentioned(text):
    """Categories that a caption names."""
    return list(dict.fromkeys(FORMS[m.group(1)] for m in MENTION.finditer(text)))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("model")
    ap.add_argument("--out", default="examples")
    ap.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    ap.add_argument("--dry", action="store_true", help="print only")
    args = ap.parse_args()
    model, lang = load_gguf(args.model), language.Language()
    os.makedirs(args.out, exist_ok=True)
    rows = []
    for seed in map(int, args.seeds.split(",")):
        sc = scenes.scene(seed, scale=4)
        im = Image.fromarray(sc["image"]).quantize(256, dither=Image.Dither.NONE).convert("RGB")
        small = np.asarray(im.resize((scenes.SIDE, scenes.SIDE), Image.BICUBIC))
        text = generate(model, lang, torch.from_numpy(small[None].copy()), language.DETAIL)[0][0]
        name = f"{scenes.CONTEXT_NAMES[sc['context']].replace(' ', '_')}_{seed}.png"
        objects = {n: len(v) for n, v in scenes.kinds_of(sc).items()}
        rows.append(dict(file=name, seed=seed, objects=objects, caption=text,
                         not_there=[n for n in mentioned(text) if n not in objects]))
        print(name, f"haze {sc['haze']:.2f}", objects, "|", text)
        if not args.dry:
            im.quantize(256, dither=Image.Dither.NONE).save(os.path.join(args.out, name), optimize=True)
    if not args.dry:
        with open(os.path.join(args.out, "captions.json"), "w", encoding="utf-8") as f:
            json.dump(rows, f, indent=1)
            f.write("\n")
        example = dict(conversation=CONVERSATION, prompt=language.DETAIL, before_image=lang.prefix,
                       image_rows=scenes.GRID ** 2, after_image=lang.prompt(language.DETAIL),
                       pieces=[lang.tok.pieces[i] for i in lang.prefix + lang.prompt(language.DETAIL)])
        with open(os.path.join(os.path.dirname(args.model), "prompt_example.json"), "w", encoding="utf-8") as f:
            json.dump(example, f, indent=1, ensure_ascii=False)
            f.write("\n")


if __name__ == "__main__":
    main()
