"""Write demo_reference.json: what PyTorch (float32, the weights stored in the GGUF file) computes for three
held-out scenes.  It is the end-to-end oracle of the engine's tests.

  python3 tests/golden/make_demo_reference.py
"""
import json
import os
import sys

import numpy as np
import torch
from PIL import Image

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path.insert(0, os.path.join(ROOT, "tools", "demo"))

import language                      # noqa: E402
from export import CONVERSATION, load_gguf   # noqa: E402
from generate import generate        # noqa: E402

MODEL = "models/demo/candid-demo.gguf"
SCENES = ["scene_000000.png", "scene_000001.png", "scene_000004.png"]
QUESTION = "Is there a person in the image?"


def main():
    torch.set_num_threads(1)
    model, lang = load_gguf(os.path.join(ROOT, MODEL)), language.Language()
    out = dict(model=MODEL, conversation=CONVERSATION, prompt=language.DETAIL, ids_before_image=lang.prefix,
               ids_after_image=lang.prompt(language.DETAIL), question=QUESTION, scenes=[])
    for name in SCENES:
        path = os.path.join("models/demo/heldout/images", name)
        pixels = np.asarray(Image.open(os.path.join(ROOT, path)).convert("RGB"))
        images = torch.from_numpy(pixels[None].copy())
        with torch.no_grad():
            rows = model.see(images)[1][0]
        texts, ids, first = generate(model, lang, images, language.DETAIL)
        answer, answer_ids, answer_first = generate(model, lang, images, QUESTION, 8)

        def top(logits):
            best = logits[0].topk(5)
            return [dict(id=int(i), piece=lang.tok.pieces[int(i)], logit=round(float(v), 5))
                    for v, i in zip(best.values, best.indices)]

        def row(k):
            return dict(row=k, first16=[round(float(v), 6) for v in rows[k, :16]],
                        l2=round(float(rows[k].double().norm()), 6))

        out["scenes"].append(dict(
            image=path, projector=[row(0), row(63)], caption=texts[0], caption_ids=ids[0], top5=top(first),
            answer=answer[0], answer_ids=answer_ids[0], answer_top5=top(answer_first)))
    target = os.path.join(ROOT, "tests", "golden", "demo_reference.json")
    with open(target + ".tmp", "w", encoding="utf-8") as f:
        json.dump(out, f, indent=1, ensure_ascii=False)
        f.write("\n")
    os.replace(target + ".tmp", target)


if __name__ == "__main__":
    main()
