"""Captions of the committed held-out scenes with each configuration, scored against the layouts.

    python3 tools/demo/methods.py build/release/candid --out docs/demo-methods.json

Shows what the methods do to a toy, not what they do for LLaVA.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import scenes
from evaluate import caption_scores

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.normpath(os.path.join(HERE, "..", ".."))
IMAGES = os.path.join(ROOT, "models", "demo", "heldout", "images")
DEMO, CCA = "models/demo/candid-demo.gguf", "models/demo-cca/candid-demo-cca.gguf"
# (name, model, arguments)
RUNS = [("baseline", DEMO, [])] + [
    (name, DEMO, ["--config", f"configs/{name}.json"])
    for name in ("beam-5", "var", "vhr", "pai-boost", "pai", "pai-readme", "paint", "paint-shipped", "hgai", "act", "vista",
                 "vista-pope", "vista-paper", "dola", "head-scale-demo", "cca", "mma", "vcd", "damro", "causalmm", "causalmm-both",
                 "icd", "agla", "vicrop", "carve", "opera", "stack-var-vhr", "stack-vhr-pai", "stack-vista-pai", "stack-var-vcd",
                 "stack-vhr-beam-5")] + [
    ("demo-cca: without cca", CCA, []), ("demo-cca: cca", CCA, ["--config", "configs/cca.json"]),
    ("demo-cca: cca + vhr", CCA, ["--config", "configs/stack-cca-vhr.json"])]


def captions(candid, model, more, names):
    """Texts in the order of names, and how many of the methods' reports say active."""
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "out.jsonl")
        subprocess.run([candid, "caption", "--threads", "1", "--model", model, *more, "--max-new-tokens", "128", "--jsonl", out,
                        IMAGES],
                       cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
        with open(out, encoding="utf-8") as f:
            lines = {os.path.basename(x["image"]): x for x in map(json.loads, f)}
    active = sum(all(m["active"] for m in x.get("interventions", {}).values()) for x in lines.values())
    return [lines[n]["text"] for n in names], active


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("candid", help="the program")
    ap.add_argument("--out", help="write the numbers as JSON")
    args = ap.parse_args()
    names = sorted(os.listdir(IMAGES))
    batch = [scenes.scene(int(n[len("scene_"):-len(".png")])) for n in names]
    plain, result = {}, []
    print("| configuration | CHAIR_i | CHAIR_s | recall | words | captions changed |\n|---|---|---|---|---|---|")
    for name, model, more in RUNS:
        texts, active = captions(os.path.abspath(args.candid), model, more, names)
        base = plain.setdefault(model, texts)
        s = caption_scores(texts, batch)
        changed = sum(a != b for a, b in zip(base, texts))
        result.append(dict(configuration=name, changed=changed, active=active, **{k: s[k] for k in (
            "scenes", "precision", "recall", "chair_s", "chair_i", "places", "repeats", "words")}))
        print(f"| {name} | {100 * s['chair_i']:.1f} % | {100 * s['chair_s']:.1f} % | {s['recall']:.3f} | {s['words']:.1f} | "
              f"{changed} of {len(names)} |", flush=True)
    if args.out:
        with open(args.out, "w", encoding="utf-8") as f:
            json.dump(result, f, indent=1)
            f.write("\n")


if __name__ == "__main__":
    sys.exit(main())
