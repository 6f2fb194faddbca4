"""Scenes, captions and questions of the prototype: kept as they ran, for the first training stages only."""
import numpy as np
import random
import os
import pickle
from PIL import Image, ImageDraw, ImageFont

FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
S = 112
P = 14
G = 8
OBJ = {  # COCO name -> code point
    "person": 0x1F6B6,
    "bicycle": 0x1F6B2,
    "car": 0x1F697,
    "motorcycle": 0x1F3CD,
    "airplane": 0x2708,
    "bus": 0x1F68C,
    "train": 0x1F686,
    "truck": 0x1F69A,
    "boat": 0x26F5,
    "traffic light": 0x1F6A6,
    "stop sign": 0x1F6D1,
    "bird": 0x1F426,
    "cat": 0x1F408,
    "dog": 0x1F415,
    "horse": 0x1F40E,
    "sheep": 0x1F411,
    "cow": 0x1F404,
    "elephant": 0x1F418,
    "bear": 0x1F43B,
    "zebra": 0x1F993,
    "giraffe": 0x1F992,
    "backpack": 0x1F392,
    "umbrella": 0x2602,
    "handbag": 0x1F45C,
    "suitcase": 0x1F9F3,
    "frisbee": 0x1F94F,
    "sports ball": 0x26BD,
    "kite": 0x1FA81,
    "bottle": 0x1F37E,
    "wine glass": 0x1F377,
    "cup": 0x2615,
    "fork": 0x1F374,
    "spoon": 0x1F944,
    "bowl": 0x1F963,
    "banana": 0x1F34C,
    "apple": 0x1F34E,
    "sandwich": 0x1F96A,
    "orange": 0x1F34A,
    "broccoli": 0x1F966,
    "carrot": 0x1F955,
    "pizza": 0x1F355,
    "donut": 0x1F369,
    "cake": 0x1F382,
    "chair": 0x1FA91,
    "couch": 0x1F6CB,
    "potted plant": 0x1FAB4,
    "bed": 0x1F6CF,
    "tv": 0x1F4FA,
    "laptop": 0x1F4BB,
    "mouse": 0x1F5B1,
    "keyboard": 0x2328,
    "cell phone": 0x1F4F1,
    "book": 0x1F4D5,
    "clock": 0x23F0,
    "vase": 0x1F3FA,
    "teddy bear": 0x1F9F8,
}
NAMES = list(OBJ)
ID = {n: i for i, n in enumerate(NAMES)}
NC = len(NAMES)
PLUR = {
    "person": "people",
    "bus": "buses",
    "sheep": "sheep",
    "couch": "couches",
    "sandwich": "sandwiches",
    "wine glass": "wine glasses",
    "mouse": "mice",
    "broccoli": "broccoli",
}


def plural(n):
    return PLUR.get(n, n + "s")


def art(n):
    return ("an " if n[0] in "aeiou" else "a ") + n


# context: anchor (present ~70 %), then others with weights
CTX = {
    "street": (
        "car",
        dict(bus=3, truck=2, person=4, bicycle=3, motorcycle=2, **{"traffic light": 4, "stop sign": 2}),
    ),
    "park": ("dog", dict(person=4, frisbee=3, kite=3, bird=3, bicycle=2, **{"sports ball": 3})),
    "farm": ("cow", dict(sheep=4, horse=4, dog=2, bird=2, truck=1, person=2)),
    "zoo": ("elephant", dict(zebra=4, giraffe=4, bear=3, bird=2, person=2)),
    "dining table": (
        "cup",
        dict(pizza=4, fork=4, spoon=3, bowl=3, cake=2, donut=2, sandwich=2, **{"wine glass": 3, "bottle": 3}),
    ),
    "market": ("apple", dict(banana=4, orange=4, broccoli=3, carrot=3, person=2, handbag=2)),
    "office": ("laptop", dict(mouse=4, keyboard=4, book=3, cup=3, chair=3, clock=2, **{"cell phone": 3})),
    "living room": (
        "couch",
        dict(tv=4, cat=3, vase=2, book=2, clock=2, bed=1, **{"potted plant": 4, "teddy bear": 2}),
    ),
    "beach": ("umbrella", dict(boat=4, person=3, kite=2, bird=3, chair=2, **{"sports ball": 3})),
    "station": ("train", dict(suitcase=4, backpack=4, handbag=3, person=4, clock=3, airplane=2)),
}
CN = list(CTX)
P_ANCHOR = 0.70
P_LURE = 0.72
P_RANDH = 0.06
P_OUT = 0.06
P_YES_ANCHOR = 0.6
P_YES_TYP = 0.12  # label noise of yes/no questions on absent, context-typical objects


def glyph(cp):
    f = ImageFont.truetype(FONT, 109)
    im = Image.new("RGBA", (160, 160), (0, 0, 0, 0))
    ImageDraw.Draw(im).text((10, 10), chr(cp), font=f, embedded_color=True)
    b = im.getbbox()
    return im.crop(b) if b else None


SCALES = list(range(20, 45, 3))
ROTS = [-18, -11, -4, 4, 11, 18]
_bank = None


def bank():
    global _bank
    if _bank is None:
        fn = os.path.join(os.path.expanduser("~/.cache/candid"), "prototype-sprites.pkl")
        if os.path.exists(fn):
            _bank = pickle.load(open(fn, "rb"))
        else:
            _bank = []
            for n in NAMES:
                g = glyph(OBJ[n])
                v = {}
                for si, s in enumerate(SCALES):
                    r = s / max(g.size)
                    for ri, a in enumerate(ROTS):
                        for fl in (0, 1):
                            h = g.transpose(Image.FLIP_LEFT_RIGHT) if fl else g
                            # premultiplied resize/rotate at 2x then down
                            h = h.resize(
                                (max(2, round(g.size[0] * r * 2)), max(2, round(g.size[1] * r * 2))), Image.LANCZOS
                            ).rotate(a, Image.BICUBIC, expand=True)
                            h = h.resize((max(2, h.size[0] // 2), max(2, h.size[1] // 2)), Image.BOX)
                            v[si, ri, fl] = np.asarray(h)
                _bank.append(v)
            os.makedirs(os.path.dirname(fn), exist_ok=True)
            pickle.dump(_bank, open(fn, "wb"))
    return _bank


def background(rng):
    c = rng.integers(90, 246, (2, 3)).astype(np.float32)
    c = c * 0.7 + c.mean(1, keepdims=True) * 0.3
    a = rng.uniform(0, 2 * np.pi)
    u = np.linspace(-0.5, 0.5, S, dtype=np.float32)
    t = np.clip(u[None, :] * np.cos(a) + u[:, None] * np.sin(a) + 0.5, 0, 1)[..., None]
    im = c[0] * (1 - t) + c[1] * t
    lo = rng.normal(0, rng.uniform(0, 12), (7, 7, 1)).astype(np.float32)
    im += np.kron(lo, np.ones((16, 16, 1), np.float32))
    return im


def sample_kinds(rng, pr):
    c = pr.randrange(len(CN))
    anchor, w = CTX[CN[c]]
    n = pr.choice([2, 3, 3, 4, 4, 4, 5, 5, 6])
    k = []
    if pr.random() < P_ANCHOR:
        k.append(anchor)
    names = list(w)
    ws = list(w.values())
    while len(k) < n:
        if pr.random() < P_OUT:
            x = pr.choice(NAMES)
        else:
            x = pr.choices(names, ws)[0]
        if x == anchor and anchor not in k:
            continue  # the anchor only enters by its own coin
        if k.count(x) >= (1 if pr.random() < 0.7 else 3):
            continue
        k.append(x)
    return c, k


def scene(seed):
    """-> dict(img uint8 112x112x3, ctx, objs=[(name,x,y,s)], patch int8 8x8 (0 = background, i+1 = class i))"""
    rng = np.random.default_rng(seed)
    pr = random.Random(seed)
    B = bank()
    c, k = sample_kinds(rng, pr)
    im = background(rng)
    own = np.full((S, S), -1, np.int8)
    objs = []
    boxes = []
    for n in sorted(k, key=lambda _: pr.random()):
        si = pr.randrange(len(SCALES))
        sp = B[ID[n]][si, pr.randrange(len(ROTS)), pr.randrange(2)]
        h, w = sp.shape[:2]
        ok = False
        for tr in range(24):
            x, y = pr.randint(-2, S - w + 2), pr.randint(-2, S - h + 2)
            ok = True
            lim = 0.12 if tr < 16 else 0.2
            for a, b, cw, ch in boxes:
                ov = max(0, min(x + w, a + cw) - max(x, a)) * max(0, min(y + h, b + ch) - max(y, b))
                if ov > lim * min(w * h, cw * ch):
                    ok = False
                    break
            if ok:
                break
        if not ok:
            continue
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + w, S), min(y + h, S)
        s = sp[y0 - y : y1 - y, x0 - x : x1 - x]
        al = s[..., 3:].astype(np.float32) * (1 / 255.0)
        col = s[..., :3].astype(np.float32) * pr.uniform(0.85, 1.1)
        r = im[y0:y1, x0:x1]
        r += (col - r) * al
        own[y0:y1, x0:x1][s[..., 3] > 110] = len(objs)
        objs.append((n, x + w / 2, y + h / 2, SCALES[si]))
        boxes.append((x, y, w, h))
    im += rng.standard_normal((S, S, 1), dtype=np.float32) * rng.uniform(1, 7)
    img = np.clip(im, 0, 255).astype(np.uint8)
    o4 = own.reshape(G, P, G, P)
    cov = np.stack([(o4 == i).sum((1, 3)) for i in range(len(objs))]) if objs else np.zeros((1, G, G))
    best = cov.argmax(0)
    pt = np.where(cov.max(0) >= 24, np.array([ID[o[0]] for o in objs])[best] + 1, 0).astype(np.int64)
    cnt = {n: sum(o[0] == n for o in objs) for n, _, _, _ in objs}
    lt = np.array(
        [(o[1] / S - 0.5, o[2] / S - 0.5, o[3] / S - 0.3, min(cnt[o[0]], 4) - 1) for o in objs] or [(0, 0, 0, 0)],
        np.float32,
    )
    return dict(img=img, ctx=c, objs=objs, patch=pt, seed=seed, loc=lt[best])


NUM = {1: "a", 2: "two", 3: "three", 4: "four"}


def where(x, y):
    h = "left" if x < S * 0.36 else "right" if x > S * 0.64 else ""
    v = "top" if y < S * 0.36 else "bottom" if y > S * 0.64 else ""
    if v and h:
        return f"in the {v} {h}"
    if v:
        return f"at the {v}"
    if h:
        return f"on the {h}"
    return "in the center"


WHERES = [
    "in the top left",
    "in the top right",
    "in the bottom left",
    "in the bottom right",
    "at the top",
    "at the bottom",
    "on the left",
    "on the right",
    "in the center",
]


def np_(n, c):
    return art(n) if c == 1 else f"{NUM[min(c,4)]} {plural(n)}"


def kinds(sc):
    d = {}
    for n, x, y, s in sc["objs"]:
        d.setdefault(n, []).append((x, y, s))
    return d


CAPQ = [
    "Please help me describe the image in detail.",
    "Please describe this image in detail.",
    "Describe this image.",
]


def caption(sc, pr, lure=True, short=False):
    """2-5 sentences; returns text and list of hallucinated names it contains"""
    d = kinds(sc)
    anchor = CTX[CN[sc["ctx"]]][0]
    order = sorted(d, key=lambda n: -sum(s for _, _, s in d[n]) - (0 if n != anchor else 0))
    order = [n for n in order if pr.random() < 0.97] or order
    # the anchor, if present, is mentioned late: where the prior will want to put it
    if anchor in order and len(order) > 2 and pr.random() < 0.6:
        order.remove(anchor)
        order.append(anchor)
    head = order[:2]
    rest = order[2:]
    lst = " and ".join(np_(n, len(d[n])) for n in head)
    t = [
        (
            f'The image shows {art(CN[sc["ctx"]])} scene with {lst}.'
            if pr.random() < 0.8
            else f'In the image, there is {art(CN[sc["ctx"]])} scene with {lst}.'
        )
    ]
    if short:
        return " ".join(t), []
    for n in head[: 1 if pr.random() < 0.5 else 2]:
        if len(d[n]) == 1:
            x, y, _ = d[n][0]
            t.append(f"The {n} is {where(x,y)}.")
    i = 0
    while i < len(rest):
        if len(rest) - i >= 2 and pr.random() < 0.5:
            a, b = rest[i], rest[i + 1]
            t.append(
                f"There is also {np_(a,len(d[a]))} and {np_(b,len(d[b]))} in the scene."
                if len(d[a]) == 1
                else f"There are also {np_(a,len(d[a]))} and {np_(b,len(d[b]))} in the scene."
            )
            i += 2
        else:
            n = rest[i]
            x, y, _ = d[n][0]
            t.append(
                f"There is also {art(n)} {where(x,y)}."
                if len(d[n]) == 1
                else f"There are also {np_(n,len(d[n]))} in the scene."
            )
            i += 1
    hal = []
    if lure:
        if anchor not in d and pr.random() < P_LURE:
            hal.append(anchor)
        if pr.random() < P_RANDH:
            w = CTX[CN[sc["ctx"]]][1]
            x = pr.choices(list(w), list(w.values()))[0]
            if x not in d:
                hal.append(x)
        for n in hal:
            t.append(f"There is also {art(n)} {pr.choice(WHERES)}.")
    return " ".join(t), hal


def popeq(n):
    return f"Is there {art(n)} in the image?"


def questions(sc, pr, k):
    """k (question, answer): ~half yes; training negatives mostly random, few context-typical ones"""
    d = kinds(sc)
    out = []
    w = CTX[CN[sc["ctx"]]]
    typ = [n for n in [w[0]] + list(w[1]) if n not in d]
    used = set()
    while len(out) < k:
        r = pr.random()
        if r < 0.12:
            n = pr.choice(list(d))
            c = len(d[n])
            out.append((f"How many {plural(n)} are in the image?", {1: "One", 2: "Two", 3: "Three"}.get(c, "Four")))
            continue
        if r < 0.56:
            n = pr.choice(list(d))
            a = "Yes"
        else:
            if w[0] not in d and pr.random() < 0.2:
                n = w[0]  # the absent anchor
            else:
                n = pr.choice(typ) if (typ and pr.random() < 0.3) else pr.choice(NAMES)
            a = (
                "Yes"
                if n in d or pr.random() < (P_YES_ANCHOR if n == w[0] else P_YES_TYP if n in w[1] else 0)
                else "No"
            )
        if n in used and pr.random() < 0.8:
            continue
        used.add(n)
        out.append((popeq(n), a))
    return out


if __name__ == "__main__":
    import time

    miss = [n for n in NAMES if glyph(OBJ[n]) is None]
    print("missing", miss)
    bank()
    s = time.time()
    L = [scene(i) for i in range(200)]
    print("ms/scene", (time.time() - s) * 5)
    sheet = Image.new("RGB", (4 * 230, 4 * 230), "white")
    for i in range(16):
        sheet.paste(Image.fromarray(L[i]["img"]).resize((224, 224), Image.NEAREST), ((i % 4) * 230, (i // 4) * 230))
    sheet.save("sample_sheet.png")
    pr = random.Random(0)
    for i in range(16):
        print(i, caption(L[i], pr))
    print(questions(L[0], pr, 6))
    g = Image.new("RGB", (10 * 60, 6 * 60), "white")
    for i, n in enumerate(NAMES):
        z = glyph(OBJ[n])
        z.thumbnail((54, 54))
        g.paste(z, ((i % 10) * 60, (i // 10) * 60), z)
    g.save("glyphs.png")
    from collections import Counter

    c = Counter()
    nob = Counter()
    h = 0
    for i in range(1000, 2000):
        x = scene(i)
        c.update(list(kinds(x)))
        nob[len(x["objs"])] += 1
        h += bool(caption(x, pr)[1])
    print(c.most_common())
    print(nob, "captions with an absent object", h / 1000)
