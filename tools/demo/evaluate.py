"""Measure the demo model on held-out scenes: captions (CHAIR, precision, recall, places, counts, repeats),
yes/no questions, and the same scenes drawn with weaker and with stronger evidence."""
import argparse
import collections
import json
import re

import numpy as np
import torch

import language
import pope
import scenes
from export import load_gguf
from generate import answer_batch, generate

FORMS = {form: n for n in scenes.NAMES for form in (n, language.plural(n))}
NAME = "|".join(sorted(map(re.escape, FORMS), key=len, reverse=True))
MENTION = re.compile(rf"\b({NAME})\b")
PLACED = re.compile(rf"\ban? ({NAME}) ({'|'.join(sorted(language.PLACES, key=len, reverse=True))})")
COUNTED = re.compile(rf"\b(two|three|four) ({NAME})\b")


def ratio(a, b):
    return round(a / b, 4) if b else None


def caption_scores(captions, batch):
    """Scores of captions against the layouts.  A mention is the first one of a kind in a caption."""
    c = collections.Counter()
    for text, sc in zip(captions, batch):
        kinds = scenes.kinds_of(sc)
        told = [FORMS[m.group(1)] for m in MENTION.finditer(text)]
        first = list(dict.fromkeys(told))
        wrong = [n for n in first if n not in kinds]
        typical = scenes.CONTEXTS[scenes.CONTEXT_NAMES[sc["context"]]][0]
        c.update(captions=1, mentions=len(first), wrong=len(wrong), bad=bool(wrong), true=len(kinds),
                 hit=len(first) - len(wrong), repeats=len(told) > len(first), words=len(text.split()),
                 wrong_typical=sum(n in typical for n in wrong),
                 absent_typical=sum(n not in kinds for n in typical))
        c["context_ok"] += f" {scenes.CONTEXT_NAMES[sc['context']]} scene" in text
        for rank, n in enumerate(first):
            c[f"rank{min(rank, 5)}"] += 1
            c[f"rank{min(rank, 5)}_wrong"] += n in wrong
        for m in PLACED.finditer(text):
            objects = kinds.get(FORMS[m.group(1)], [])
            if len(objects) == 1:
                right, said = language.place(objects[0]), m.group(2)
                c.update(places=1, places_ok=right == said,
                         columns_ok=language.PLACES.index(right) % 3 == language.PLACES.index(said) % 3,
                         rows_ok=language.PLACES.index(right) // 3 == language.PLACES.index(said) // 3)
        numbers = {FORMS[m.group(2)]: m.group(1) for m in COUNTED.finditer(text)}
        for n, v in kinds.items():
            if n in first and (len(v) > 1 or n in numbers):
                c.update(counts=1, counts_ok=numbers.get(n, "one") == language.NUMBERS[min(4, len(v))].lower())
    return dict(
        scenes=c["captions"], precision=ratio(c["hit"], c["mentions"]), recall=ratio(c["hit"], c["true"]),
        chair_s=ratio(c["bad"], c["captions"]), chair_i=ratio(c["wrong"], c["mentions"]),
        places=ratio(c["places_ok"], c["places"]), columns=ratio(c["columns_ok"], c["places"]),
        rows=ratio(c["rows_ok"], c["places"]), places_n=c["places"],
        counts=ratio(c["counts_ok"], c["counts"]), counts_n=c["counts"], repeats=c["repeats"],
        context=ratio(c["context_ok"], c["captions"]), words=ratio(c["words"], c["captions"]),
        mentions=ratio(c["mentions"], c["captions"]), kinds=ratio(c["true"], c["captions"]),
        wrong=c["wrong"], wrong_typical=c["wrong_typical"], absent_typical=c["absent_typical"],
        wrong_by_rank=[f"{c[f'rank{r}_wrong']}/{c[f'rank{r}']}" for r in range(6)])


def images_of(batch):
    return torch.from_numpy(np.stack([sc["image"] for sc in batch]))


def captions_of(model, lang, batch, limit=110, size=100):
    return [t for i in range(0, len(batch), size)
            for t in generate(model, lang, images_of(batch[i:i + size]), language.DETAIL, limit)[0]]


def yes_no_scores(model, lang, batch, size=25):
    """Per POPE-style split: accuracy, precision, recall, F1 and share of yes."""
    present = [set(scenes.kinds_of(sc)) for sc in batch]
    asked = [(split, *q) for split in pope.SPLITS for q in pope.questions(present, split)]
    yes, no = (lang.tok.encode(w)[0] for w in ("Yes", "No"))
    best = torch.zeros(len(asked), dtype=torch.long)
    for start in range(0, len(batch), size):
        rows = [k for k, a in enumerate(asked) if start <= a[1] < start + size]
        logits = answer_batch(model, lang, images_of(batch[start:start + size]),
                              torch.tensor([asked[k][1] - start for k in rows]),
                              [language.is_there(asked[k][2]) for k in rows])
        best[rows] = logits.argmax(-1)
    out = {}
    for split in pope.SPLITS:
        rows = [k for k, a in enumerate(asked) if a[0] == split]
        s, t = (best[rows] == yes).numpy(), np.array([asked[k][3] == "yes" for k in rows])
        hit = int((s & t).sum())
        p, r = hit / max(1, int(s.sum())), hit / int(t.sum())
        out[split] = dict(questions=len(t), accuracy=ratio(int((s == t).sum()), len(t)), precision=round(p, 4),
                          recall=round(r, 4), f1=round(2 * p * r / max(1e-9, p + r), 4),
                          yes=round(float(s.mean()), 4), neither=int(((best[rows] != yes) & (best[rows] != no)).sum()))
    return out


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("model", help="GGUF file")
    ap.add_argument("--n", type=int, default=500, help="held-out scenes, seeds 0..n-1")
    ap.add_argument("--m", type=int, default=300, help="scenes of the evidence experiment, seeds 0..m-1")
    ap.add_argument("--strengths", default="-0.5,0.5,1.0", help="evidence strengths for the same scenes")
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--out", help="write the numbers as JSON")
    args = ap.parse_args()
    torch.set_num_threads(args.threads)
    model, lang = load_gguf(args.model), language.Language()
    batch = [scenes.scene(i) for i in range(args.n)]
    texts = captions_of(model, lang, batch)
    result = dict(captions=caption_scores(texts, batch), yes_no=yes_no_scores(model, lang, batch),
                  by_length={}, by_haze=[], by_strength={})
    print(json.dumps(result["captions"]), json.dumps(result["yes_no"]), flush=True)
    for limit in (16, 24, 32, 48):      # the same captions, cut after so many tokens
        cut = [lang.tok.decode(lang.tok.encode(t)[:limit]) for t in texts]
        result["by_length"][limit] = caption_scores(cut, batch)
    order = sorted(range(args.n), key=lambda i: batch[i]["haze"])
    for k in range(4):                  # quarters of the set by haze
        part = order[k * args.n // 4:(k + 1) * args.n // 4]
        row = caption_scores([texts[i] for i in part], [batch[i] for i in part])
        result["by_haze"].append(dict(haze=round(float(np.mean([batch[i]["haze"] for i in part])), 3), **row))
    for sc, t in list(zip(batch, texts))[:6]:
        print("*", language.caption(sc), "|", t)
    for strength in sorted({0.0, *(float(v) for v in args.strengths.split(",") if v)}):
        part = [scenes.scene(i, strength=strength) for i in range(min(args.n, args.m))]
        row = caption_scores(texts[:args.m] if strength == 0 else captions_of(model, lang, part), part)
        row["yes_no"] = yes_no_scores(model, lang, part)
        result["by_strength"][str(strength)] = row
        print("strength", strength, json.dumps(row), flush=True)
    if args.out:
        with open(args.out, "w", encoding="utf-8") as f:
            json.dump(result, f, indent=1)
            f.write("\n")


if __name__ == "__main__":
    main()
