"""Captions, questions and text batches of the demo model.

Every kind of object of the layout is told exactly once, best visible first: a single object with its
place ("a dog on the left"), several with their number ("two dogs").
"""
import random

import numpy as np
import torch
import torch.nn.functional as F

import scenes
import tokenizer
from model import image_positions, sees

PLURALS = {"person": "people", "bus": "buses", "sheep": "sheep", "couch": "couches", "broccoli": "broccoli",
           "wine glass": "wine glasses"}
NUMBERS = {1: "One", 2: "Two", 3: "Three", 4: "Four"}
PLACES = ("in the top left", "at the top", "in the top right", "on the left", "in the center", "on the right",
          "in the bottom left", "at the bottom", "in the bottom right")
DETAIL = "Please help me describe the image in detail."
DETAIL2 = "Please describe this image in detail."
BRIEF = "Describe this image briefly."
PREFIX = "USER: "
W_PLACE, W_NUMBER, W_ANSWER, W_END, W_PATCH, W_AGAIN = 2.5, 2.0, 2.0, 0.3, 0.2, 4.0
P_SLIP = 0.5      # share of the captions with several of a kind that are given to the model with a slip, see caption_segment


def plural(name):
    return PLURALS.get(name, name + "s")


def article(name):
    return ("an " if name[0] in "aeiou" else "a ") + name


def place(o):
    """Where an object is, in words."""
    return PLACES[scenes.cell(o["x"]) + 3 * scenes.cell(o["y"])]


def phrase(name, objects):
    if len(objects) == 1:
        return f"{article(name)} {place(objects[0])}"
    return f"{NUMBERS[min(4, len(objects))].lower()} {plural(name)}"


def caption(sc, brief=False, as_one=()):
    """The reference description of a scene.  Kinds in `as_one` are told as if there were one of them."""
    kinds = {n: v[:1] if n in as_one else v for n, v in scenes.kinds_of(sc).items()}
    parts = [(phrase(n, v), len(v)) for n, v in kinds.items()]
    context = article(scenes.CONTEXT_NAMES[sc["context"]])
    text = f"The image shows {context} scene with " + " and ".join(p for p, _ in parts[:2]) + "."
    if not brief:
        for p, count in parts[2:]:
            text += f" There {'is' if count == 1 else 'are'} also {p}."
    return text


def is_there(name):
    return f"Is there {article(name)} in the image?"


def questions(sc, rng, k):
    """k pairs (question, answer).  Typical objects are asked about whether they are there or not."""
    kinds = scenes.kinds_of(sc)
    names = list(kinds)
    typical, other = scenes.CONTEXTS[scenes.CONTEXT_NAMES[sc["context"]]][:2]
    single = [n for n in names if len(kinds[n]) == 1 and kinds[n][0]["alpha"] > 0.2]
    many = [n for n in names if len(kinds[n]) > 1]
    out = []
    for _ in range(k):
        r = rng.random()
        if r < 0.24 and single:
            n = rng.choice(single)
            p = place(kinds[n][0])
            out.append((f"Where is the {n} in the image?", p[0].upper() + p[1:] + "."))
        elif r < 0.38:
            n = rng.choice(many) if many and rng.random() < 0.6 else rng.choice(names)
            out.append((f"How many {plural(n)} are in the image?", NUMBERS[min(4, len(kinds[n]))]))
        else:
            r = rng.random()
            n = rng.choice(names if r < 0.32 else typical if r < 0.62 else other if r < 0.7 else scenes.NAMES)
            out.append((is_there(n), "Yes" if n in kinds else "No"))
    return out


def corpus():
    """Texts for the tokenizer, from layouts that are not used elsewhere."""
    rng = random.Random(5)
    for i in range(3000):
        lay = scenes.layout(5_000_000 + i)
        objects = [dict(o, drawn=o["size"], alpha=1.0) for o in lay["objects"]]
        sc = dict(objects=objects, context=lay["context"])
        yield caption(sc)
        for q, a in questions(sc, rng, 4):
            yield "\n" + q + " ASSISTANT: " + a
        yield PREFIX
    for n in scenes.NAMES:
        for count in NUMBERS.values():
            yield f"{count} {count.lower()} {n} {plural(n)}"
        yield "The " + n + " " + article(n)
    for n in scenes.CONTEXT_NAMES:
        yield "The image shows " + article(n) + " scene"
    for t in (DETAIL, DETAIL2, BRIEF, "Is there an Are there Yes No") + PLACES:
        yield "\n" + t + " ASSISTANT: " + t


class Language:
    """Tokenised segments and the training loss on them."""

    def __init__(self):
        self.tok = tokenizer.Tokenizer()
        self.vocab = len(self.tok.pieces)
        self.prefix = [tokenizer.BOS] + self.tok.encode(PREFIX)
        place_words = {w for p in PLACES for w in p.split()} - {"the", "in", "at", "on"}
        self.name_ids = torch.tensor([self.tok.encode(n)[0] for n in scenes.NAMES])
        self.place_ids = {i for w in place_words for i in self.tok.encode(w)}
        self.kind_of = {self.tok.encode(form)[0]: i for i, n in enumerate(scenes.NAMES) for form in (n, plural(n))}
        self.kind_ids = [[t for t, k in self.kind_of.items() if k == i] for i in range(len(scenes.NAMES))]
        self.teddy = self.tok.encode("teddy bear")[0]
        self.number_ids = {self.tok.encode(w)[0] for w in ("a", "an", "is", "are", "two", "three", "four")}

    def prompt(self, question):
        """Ids after the image."""
        return self.tok.encode(f"\n{question} ASSISTANT:")

    def segment(self, question, answer, is_caption):
        """(ids, first answer index, weight per id)."""
        head = self.prompt(question)
        ids = self.tok.encode(f"\n{question} ASSISTANT: {answer}") + [tokenizer.EOS]
        assert ids[:len(head)] == head
        base = 1.0 if is_caption else W_ANSWER
        weights = [W_PLACE if i in self.place_ids else W_NUMBER if i in self.number_ids else base for i in ids]
        weights[-1] = 1.0 if is_caption else W_END
        return ids, len(head), weights

    def caption_segment(self, sc, rng):
        """A caption to learn from.

        A model that takes two dogs for one tells "a dog" and then finds the other dog still untold.  Such
        captions never occur among the true ones, so some captions carry that slip on purpose: the words of
        the slip are read but not learnt (weight 0), what follows teaches that a kind once told is done.
        """
        r = rng.random()
        question = DETAIL if r < 0.75 else DETAIL2 if r < 0.92 else BRIEF
        brief = question is BRIEF
        many = [n for n, v in scenes.kinds_of(sc).items() if len(v) > 1]
        if not many or rng.random() >= P_SLIP:
            return self.segment(question, caption(sc, brief), True)
        text = caption(sc, brief, as_one=many)
        ids, start, weights = self.segment(question, text, True)
        for n in many:
            said = phrase(n, scenes.kinds_of(sc)[n][:1])
            # also the verb before it ("There is also"), which the slip has turned to the singular
            begin = text.find(said)
            if begin < 0:
                continue
            if text[:begin].endswith("There is also "):
                begin -= len("is also ")
            a = len(self.tok.encode(f"\n{question} ASSISTANT: {text[:begin].rstrip()}"))
            b = len(self.tok.encode(f"\n{question} ASSISTANT: {text[:text.find(said) + len(said)]}"))
            for i in range(a, b):
                weights[i] = 0.0
        return ids, start, weights

    def told_before(self, ids, start):
        """Where a caption names a kind: (index of the name's first id, first ids of the kinds told before)."""
        told, out = [], []
        for i in range(start, len(ids)):
            kind = self.kind_of.get(ids[i])
            if kind is None or ids[i - 1] == self.teddy:
                continue
            if told:
                out.append((i, [t for k in told if k != kind for t in self.kind_ids[k]]))
            told.append(kind)
        return out

    @staticmethod
    def pad(segments):
        """Inputs, targets (-1 = none) and weights, padded on the right."""
        n = max(len(s[0]) for s in segments) - 1
        x = torch.zeros(len(segments), n, dtype=torch.long)
        y, w = torch.full_like(x, -1), torch.zeros(len(segments), n)
        for i, (ids, start, weights) in enumerate(segments):
            x[i, :len(ids) - 1] = torch.tensor(ids[:-1])
            y[i, start - 1:len(ids) - 1] = torch.tensor(ids[start:])
            w[i, start - 1:len(ids) - 1] = torch.tensor(weights[start:])
        return x, y, w

    def loss(self, model, projected, batch, k, rng):
        """One image prefix per scene, then a caption and k question segments.

        Every segment sees the prefix and itself, and starts at the position after the prefix, so each is
        equal to a conversation of its own.
        """
        b = len(batch)
        xc, yc, wc = self.pad([sc["caption"] for sc in batch])
        xq, yq, wq = self.pad([self.segment(q, a, False) for sc in batch for q, a in questions(sc, rng, k)])
        lc, lq, n0 = xc.shape[1], xq.shape[1], len(self.prefix)
        p = n0 + projected.shape[1]
        head = model.embed(torch.tensor(self.prefix)).expand(b, -1, -1)
        x = torch.cat([head, projected, model.embed(xc), model.embed(xq).view(b, k * lq, -1)], 1)
        prefix, after = image_positions(n0, projected.shape[1], model.cca)
        positions = torch.cat([prefix, after + torch.arange(lc)] + [after + torch.arange(lq)] * k)
        owner = torch.cat([torch.zeros(p), torch.ones(lc)] + [torch.full((lq,), 2.0 + i) for i in range(k)])
        seen = (owner[None] == 0) | (owner[None] == owner[:, None])
        seen &= torch.ones_like(seen).tril()
        seen[:p, :p] = sees(n0, projected.shape[1], model.cca)
        mask = torch.zeros(seen.shape).masked_fill_(~seen, float("-inf"))
        hidden, _ = model.decode(x, positions, mask)
        y = torch.cat([yc, yq.view(b, -1)], 1).flatten()
        w = torch.cat([wc, wq.view(b, -1)], 1).flatten()
        pick = (y >= 0).nonzero()[:, 0]
        y, w = y[pick], w[pick]
        logits = model.output(hidden[:, p:].flatten(0, 1)[pick])
        each = F.cross_entropy(logits, y, reduction="none")
        banned = torch.zeros(b, lc + k * lq, self.vocab, dtype=torch.bool)
        for row, sc in enumerate(batch):
            for i, ids in self.told_before(*sc["caption"][:2]):
                banned[row, i - 1, ids] = True
        banned = banned.flatten(0, 1)[pick]
        named = banned.any(1)     # unlikelihood (Welleck et al. 2020) of telling a kind again
        again = (logits[named].softmax(-1) * banned[named]).sum(-1).clamp(max=0.999)
        again = -torch.log1p(-again).sum() / max(1, int(named.sum()))
        classes = torch.from_numpy(np.stack([scenes.patch_targets(sc)[0] for sc in batch]))
        shown = classes > 0      # the decoder also names the object of a patch at the patch's own position
        patch = F.cross_entropy(model.output(hidden[:, n0:p][shown]), self.name_ids[classes[shown] - 1])
        with torch.no_grad():
            asked = (pick % (lc + k * lq)) >= lc
            right = (logits.argmax(-1) == y).float()
            placed = torch.tensor([int(t) in self.place_ids for t in y])
            answers = asked & (y != tokenizer.EOS)
            parts = dict(patch=patch.item(), again=again.item(), cap=each[~asked].mean().item(), ask=each[answers].mean().item(),
                         ask_ok=right[answers & ~placed].mean().item(),
                         place_ok=right[~asked & placed].mean().item())
        return (each * w).sum() / w.sum() + W_PATCH * patch + W_AGAIN * again, parts
