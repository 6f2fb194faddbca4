"""POPE-style questions (random, popular, adversarial) for the held-out scenes, in POPE's JSON lines."""
import argparse
import collections
import json
import os
import random

import language
import scenes

SPLITS = ("random", "popular", "adversarial")


def questions(present, split, seed=7, per_scene=3):
    """[(scene index, name, label)] for a list of sets of present names; as POPE: the statistics come from
    the annotated scenes themselves, and per scene come up to three present and as many absent objects."""
    rng = random.Random(seed)
    frequency, together = collections.Counter(), collections.defaultdict(collections.Counter)
    for names in present:
        for a in sorted(names):
            frequency[a] += 1
            for b in sorted(names):
                if a != b:
                    together[a][b] += 1
    out = []
    for i, names in enumerate(present):
        yes = rng.sample(sorted(names), min(per_scene, len(names)))
        absent = [n for n in scenes.NAMES if n not in names]
        if split == "random":
            no = rng.sample(absent, len(yes))
        elif split == "popular":
            no = sorted(absent, key=lambda n: -frequency[n])[:len(yes)]
        else:
            no = sorted(absent, key=lambda n: -sum(together[a][n] / frequency[a] for a in sorted(names)))[:len(yes)]
        for a, b in zip(yes, no):
            out += [(i, a, "yes"), (i, b, "no")]
    return out


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("folder", help="held-out folder with instances.json")
    args = ap.parse_args()
    with open(os.path.join(args.folder, "instances.json"), encoding="utf-8") as f:
        data = json.load(f)
    names = {c["id"]: c["name"] for c in data["categories"]}
    present = {im["id"]: set() for im in data["images"]}
    for a in data["annotations"]:
        present[a["image_id"]].add(names[a["category_id"]])
    for split in SPLITS:
        with open(os.path.join(args.folder, f"questions_{split}.jsonl"), "w", encoding="utf-8") as f:
            for k, (i, name, label) in enumerate(questions(list(present.values()), split), 1):
                f.write(json.dumps(dict(question_id=k, image=data["images"][i]["file_name"],
                                        text=language.is_there(name), label=label)) + "\n")


if __name__ == "__main__":
    main()
