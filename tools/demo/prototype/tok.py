"""LLaMA-style SentencePiece-BPE of the prototype."""
import re
import json
import random
from collections import Counter
import scenes
import os

FN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tok.json")
U = "\u2581"


def words(t):
    return re.findall(U + "?[A-Za-z]+|" + U + "|[^A-Za-z" + U + "]", t)


def corpus(n=4000):
    pr = random.Random(5)
    c = Counter()
    for i in range(n):
        k = scenes.sample_kinds(None, pr)
        sc = dict(ctx=k[0], objs=[(x, pr.random() * 112, pr.random() * 112, 30) for x in k[1]])
        T = [scenes.caption(sc, pr)[0]] + [x for q in scenes.questions(sc, pr, 4) for x in q] + scenes.CAPQ
        for t in T:
            c.update(words(U + t.replace(" ", U)))
    for n in scenes.NAMES:
        for t in (scenes.popeq(n), scenes.plural(n), "There are " + n):
            for w in words(U + t.replace(" ", U)):
                c[w] += 20
    for w in ("USER", "ASSISTANT"):
        c[U + w] += 5000
    for w in ("Is", "How", "Please", "Describe"):
        c[w] += 1000
    for w in CNW:
        c[U + w] += 50
    return c


CNW = [w for c in scenes.CN for w in c.split()]


def train(maxp):
    c = corpus()
    ws = {w: list(w) for w in c}
    chars = sorted({ch for w in c for ch in w if ch != "\n"})
    merges = []
    chars = sorted(set(chars) | set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,?!:;-'\"()" + U))
    while 259 + len(chars) + len(merges) < maxp:
        pc = Counter()
        for w, s in ws.items():
            for a, b in zip(s, s[1:]):
                pc[a + b] += c[w]
        if not pc:
            break
        best = max(pc, key=lambda p: (pc[p], p))
        merges.append(best)
        for w, s in ws.items():
            i = 0
            o = []
            while i < len(s):
                if i + 1 < len(s) and s[i] + s[i + 1] == best:
                    o.append(best)
                    i += 2
                else:
                    o.append(s[i])
                    i += 1
            ws[w] = o
    P = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)] + merges + chars
    sc = [0.0] * 259 + [-float(i) for i in range(len(merges) + len(chars))]
    json.dump(dict(pieces=P, scores=sc), open(FN, "w"))
    return P, ws


class Tok:
    def __init__(s):
        d = json.load(open(FN))
        s.p = d["pieces"]
        s.id = {p: i for i, p in enumerate(s.p)}
        s.sc = d["scores"]
        s.cache = {}
        s.n = len(s.p)

    def enc1(s, w):
        if w in s.cache:
            return s.cache[w]
        a = list(w)
        while True:
            b = None
            for i in range(len(a) - 1):
                j = s.id.get(a[i] + a[i + 1])
                if j is not None and (b is None or s.sc[j] > b[0]):
                    b = (s.sc[j], i)
            if b is None:
                break
            i = b[1]
            a[i : i + 2] = [a[i] + a[i + 1]]
        r = []
        for x in a:
            if x in s.id:
                r.append(s.id[x])
            else:
                r += [3 + v for v in x.encode()]
        s.cache[w] = r
        return r

    def enc(s, t):  # with the dummy prefix, as LLaMA
        return [i for w in words(U + t.replace(" ", U)) for i in s.enc1(w)]

    def dec(s, ids):
        o = b""
        for i in ids:
            if i < 3:
                continue
            o += bytes([i - 3]) if i < 259 else s.p[i].replace(U, " ").encode()
        return o.decode(errors="replace")


if __name__ == "__main__":
    P, ws = train(768)
    t = Tok()
    print(t.n, "unmerged words", [w for w, s in ws.items() if len(s) > 1])
    x = "\nPlease help me describe the image in detail. ASSISTANT: The image shows a dining table scene with a wine glass and a cup. There is also a potted plant on the left."
    print(len(t.enc(x)), [t.p[i] for i in t.enc(x)])
    assert t.dec(t.enc(x))[1:] == x
    print([t.p[i] for i in t.enc("USER: ")], [t.p[i] for i in t.enc("\nIs there a dog in the image? ASSISTANT: Yes")])
