"""Scene generator of the demo model: emoji glyphs of COCO categories on simple backgrounds.

A scene has a context (street, kitchen, ...).  Each context has three *typical* objects, each present
with probability P_TYPICAL, and a list of occasional ones.  Every scene also has a haze value: haze
washes out the typical objects much more than the others, so in a hazy scene a typical object may be
there without being recognisable.  Some typical objects are also small ("far") or half hidden.
Captions and answers always tell what is *in the layout*, seen or not; what a model makes of weak
evidence it has to learn from the statistics.  There is no planted false statement.

All randomness comes from the scene's seed.  Train seeds start at TRAIN_SEED0, held-out seeds at 0.
"""
import argparse
import functools
import json
import math
import os
import random

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
SIDE, PATCH, GRID = 112, 14, 8
TRAIN_SEED0 = 10_000_000

# COCO name -> (COCO category id, code point of the glyph)
OBJECTS = {
    "person": (1, 0x1F6B6), "bicycle": (2, 0x1F6B2), "car": (3, 0x1F697), "motorcycle": (4, 0x1F3CD),
    "bus": (6, 0x1F68C), "train": (7, 0x1F686), "truck": (8, 0x1F69A), "boat": (9, 0x26F5),
    "traffic light": (10, 0x1F6A6), "bird": (16, 0x1F426), "cat": (17, 0x1F408), "dog": (18, 0x1F415),
    "horse": (19, 0x1F40E), "sheep": (20, 0x1F411), "cow": (21, 0x1F404), "elephant": (22, 0x1F418),
    "bear": (23, 0x1F43B), "zebra": (24, 0x1F993), "giraffe": (25, 0x1F992), "backpack": (27, 0x1F392),
    "umbrella": (28, 0x2602), "handbag": (31, 0x1F45C), "suitcase": (33, 0x1F9F3),
    "sports ball": (37, 0x26BD), "kite": (38, 0x1FA81), "bottle": (44, 0x1F37E),
    "wine glass": (46, 0x1F377), "cup": (47, 0x2615), "banana": (52, 0x1F34C), "apple": (53, 0x1F34E),
    "orange": (55, 0x1F34A), "broccoli": (56, 0x1F966), "carrot": (57, 0x1F955), "pizza": (59, 0x1F355),
    "cake": (61, 0x1F382), "chair": (62, 0x1FA91), "couch": (63, 0x1F6CB), "potted plant": (64, 0x1FAB4),
    "tv": (72, 0x1F4FA), "laptop": (73, 0x1F4BB), "keyboard": (76, 0x2328), "cell phone": (77, 0x1F4F1),
    "book": (84, 0x1F4D5), "clock": (85, 0x23F0), "vase": (86, 0x1F3FA), "teddy bear": (88, 0x1F9F8),
}
NAMES = list(OBJECTS)
INDEX = {name: i for i, name in enumerate(NAMES)}

# context -> (typical objects, occasional objects, colour above the horizon, colour below)
CONTEXTS = {
    "street": (("car", "person", "traffic light"), ("bus", "truck", "bicycle", "motorcycle", "dog"),
               (176, 190, 205), (128, 128, 134)),
    "park": (("dog", "bird", "person"), ("kite", "bicycle", "sports ball", "cat", "backpack"),
             (150, 205, 240), (130, 190, 105)),
    "farm": (("cow", "sheep", "person"), ("horse", "bird", "truck", "dog", "apple"),
             (170, 215, 245), (205, 190, 110)),
    "zoo": (("elephant", "giraffe", "bird"), ("zebra", "bear", "person", "sports ball"),
            (205, 225, 200), (190, 150, 100)),
    "kitchen": (("cup", "bottle", "clock"), ("pizza", "cake", "wine glass", "banana", "chair"),
                (245, 232, 205), (205, 160, 120)),
    "market": (("apple", "person", "banana"), ("orange", "carrot", "broccoli", "handbag"),
               (235, 205, 170), (170, 120, 95)),
    "office": (("laptop", "chair", "clock"), ("keyboard", "book", "cup", "cell phone", "potted plant"),
               (215, 222, 230), (160, 170, 190)),
    "living room": (("couch", "tv", "clock"), ("cat", "potted plant", "book", "vase", "teddy bear"),
                    (225, 200, 215), (175, 125, 130)),
    "beach": (("umbrella", "person", "bird"), ("boat", "kite", "sports ball", "chair"),
              (110, 190, 235), (240, 220, 165)),
    "station": (("train", "suitcase", "person"), ("backpack", "handbag", "clock", "bus"),
                (195, 185, 225), (140, 130, 150)),
}
CONTEXT_NAMES = list(CONTEXTS)

P_TYPICAL = 0.75      # each typical object is in the scene with this probability
P_OUTSIDER = 0.05     # an extra object is drawn from all categories
P_PLURAL = 0.22       # an occasional object comes twice or three times
P_CLEAR = 0.20        # scenes with little haze
FADE, FAINTEST = 1.4, 0.01   # how fast haze washes typical objects out, and the least opacity
P_FAR, P_HIDDEN = 0.12, 0.12   # typical objects that are tiny / half covered by another object
SIZES = tuple(range(20, 45, 3))
FAR_SIZES = (12, 15)
ROTATIONS = (-18, -11, -4, 4, 11, 18)
MARGIN = 0.028        # object centres keep this distance (share of the side) from the 3x3 borders
LOW, HIGH = 0.36, 0.64


@functools.lru_cache(maxsize=None)
def glyph(name):
    """The glyph of a category at the font's native bitmap size, cropped to its ink, as RGBA."""
    font = ImageFont.truetype(FONT, 109)
    im = Image.new("RGBA", (160, 160), (0, 0, 0, 0))
    ImageDraw.Draw(im).text((10, 10), chr(OBJECTS[name][1]), font=font, embedded_color=True)
    return im.crop(im.getbbox())


@functools.lru_cache(maxsize=20000)
def sprite(name, size, rotation, flip):
    """RGBA array of a glyph whose longer side is `size` pixels before rotation."""
    g = glyph(name)
    if flip:
        g = g.transpose(Image.FLIP_LEFT_RIGHT)
    r = size / max(g.size)
    g = g.resize((max(2, round(g.size[0] * r * 2)), max(2, round(g.size[1] * r * 2))), Image.LANCZOS)
    g = g.rotate(rotation, Image.BICUBIC, expand=True)
    g = g.resize((max(2, g.size[0] // 2), max(2, g.size[1] // 2)), Image.BOX)
    a = np.asarray(g)
    return a[..., :3].astype(np.float32), a[..., 3:].astype(np.float32) / 255


def near_border(v):
    """True when a relative coordinate is too close to a border of the 3x3 place grid."""
    return abs(v - LOW) < MARGIN or abs(v - HIGH) < MARGIN


def choose_kinds(rng):
    """(context index, [(name, typical)]) of a scene."""
    c = rng.randrange(len(CONTEXT_NAMES))
    typical, other = CONTEXTS[CONTEXT_NAMES[c]][:2]
    out = [(n, True) for n in typical if rng.random() < P_TYPICAL]
    want = rng.choice((1, 2, 2, 3)) + (1 if len(out) < 2 else 0)
    seen = {n for n in typical}
    for _ in range(want):
        n = rng.choice(NAMES) if rng.random() < P_OUTSIDER else rng.choice(other)
        if n in seen:
            continue
        seen.add(n)
        copies = rng.choice((2, 2, 3)) if rng.random() < P_PLURAL else 1
        out += [(n, False)] * copies
    if not out:
        out.append((rng.choice(other), False))
    return c, out


def layout(seed):
    """Everything about a scene except pixels: context, haze and objects in drawing order.

    Objects are dicts: name, typical, x, y (centre, pixels of 112), size, clear_size, rotation, flip,
    hidden, fade (how strongly haze acts on it), tint.
    """
    rng = random.Random(seed)
    c, kinds = choose_kinds(rng)
    haze = rng.uniform(0, 0.3) if rng.random() < P_CLEAR else rng.uniform(0.4, 1.0)
    objects, boxes = [], []
    rng.shuffle(kinds)
    hidden_first = []
    for name, typical in kinds:
        o = dict(name=name, typical=typical, rotation=rng.choice(ROTATIONS), flip=rng.randrange(2),
                 tint=rng.uniform(0.85, 1.1), clear_size=rng.choice(SIZES), hidden=False)
        o["size"] = o["clear_size"]
        o["fade"] = FADE * rng.uniform(0.85, 1.1) if typical else rng.uniform(0.3, 0.6)
        if typical and rng.random() < P_FAR:
            o["size"] = rng.choice(FAR_SIZES)
        elif typical and rng.random() < P_HIDDEN:
            o["hidden"] = True
        hidden_first.append(o)
    hidden_first.sort(key=lambda o: not o["hidden"])
    for o in hidden_first:
        h, w = sprite(o["name"], o["size"], o["rotation"], o["flip"])[1].shape[:2]
        covers = next((p for p in objects if p["hidden"] and not p.get("covered")), None)
        for attempt in range(40):
            if covers is not None and not o["hidden"] and attempt < 12:
                a, d = rng.uniform(0, 2 * math.pi), rng.uniform(0.35, 0.55) * max(covers["size"], o["size"])
                x, y = round(covers["x"] + d * math.cos(a) - w / 2), round(covers["y"] + d * math.sin(a) - h / 2)
                if not (-2 <= x <= SIDE - w + 2 and -2 <= y <= SIDE - h + 2):
                    continue
            else:
                x, y = rng.randint(-2, SIDE - w + 2), rng.randint(-2, SIDE - h + 2)
            if near_border((x + w / 2) / SIDE) or near_border((y + h / 2) / SIDE):
                continue
            ok = True
            for (bx, by, bw, bh), p in zip(boxes, objects):
                over = max(0, min(x + w, bx + bw) - max(x, bx)) * max(0, min(y + h, by + bh) - max(y, by))
                limit = 0.55 if p["hidden"] else (0.12 if attempt < 28 else 0.2)
                if over > limit * min(w * h, bw * bh):
                    ok = False
                    break
            if ok:
                o.update(x=x + w / 2, y=y + h / 2)
                if covers is not None:
                    covers["covered"] = True
                objects.append(o)
                boxes.append((x, y, w, h))
                break
    return dict(seed=seed, context=c, haze=haze, objects=objects)


def background(rng, context, haze, side):
    """Two colours with a soft horizon, a blocky texture and haze."""
    top, bottom = (np.array(v, np.float32) for v in CONTEXTS[CONTEXT_NAMES[context]][2:])
    top, bottom = (v + rng.normal(0, 14, 3).astype(np.float32) for v in (top, bottom))
    horizon, soft, tilt = rng.uniform(0.3, 0.6), rng.uniform(0.03, 0.15), rng.uniform(-0.15, 0.15)
    blocks = rng.normal(0, rng.uniform(0, 10), (8, 8, 1)).astype(np.float32)
    u = (np.arange(side, dtype=np.float32) + 0.5) / side
    t = 1 / (1 + np.exp(-(u[:, None] + tilt * (u[None, :] - 0.5) - horizon) / soft))[..., None]
    im = top * (1 - t) + bottom * t + np.kron(blocks, np.ones((side // 8, side // 8, 1), np.float32))
    return im * (1 - 0.45 * haze) + 205 * 0.45 * haze


def render(lay, scale=1, strength=0.0):
    """Pixels of a layout.

    scale     integer enlargement (1 = 112 pixels a side)
    strength  0 = as laid out; s > 0 removes the share s of the haze, and from 0.5 on also draws far
              objects at their normal size and hidden objects on top; s < 0 adds haze.
    Returns a dict: image (uint8), owner (index of the visible object per pixel or -1), objects (with
    the drawn alpha, size, box), haze, context.
    """
    rng = np.random.default_rng(lay["seed"])
    haze = lay["haze"] * (1 - strength) if strength >= 0 else lay["haze"] + (1 - lay["haze"]) * -strength
    side = SIDE * scale
    im = background(rng, lay["context"], haze, side)
    grain, clear = rng.uniform(1, 5) + 9 * haze, strength >= 0.5
    objects = [dict(o, id=i) for i, o in enumerate(lay["objects"])]
    if clear:
        objects.sort(key=lambda o: o["hidden"])
    owner = np.full((side, side), -1, np.int8)
    for o in objects:
        o["drawn"] = o["clear_size"] if clear else o["size"]
        o["alpha"] = float(np.clip(1 - o["fade"] * haze, FAINTEST, 1))
        colour, alpha = sprite(o["name"], o["drawn"] * scale, o["rotation"], o["flip"])
        h, w = alpha.shape[:2]
        x, y = round(o["x"] * scale - w / 2), round(o["y"] * scale - h / 2)
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + w, side), min(y + h, side)
        a = alpha[y0 - y:y1 - y, x0 - x:x1 - x]
        region = im[y0:y1, x0:x1]
        region += (colour[y0 - y:y1 - y, x0 - x:x1 - x] * o["tint"] - region) * (a * o["alpha"])
        owner[y0:y1, x0:x1][a[..., 0] > 0.43] = o["id"]
        o["box"] = (x0 / scale, y0 / scale, (x1 - x0) / scale, (y1 - y0) / scale)
    im += rng.standard_normal((SIDE, SIDE, 1), dtype=np.float32).repeat(scale, 0).repeat(scale, 1) * grain \
        if scale == 1 else 0.5 * grain * rng.standard_normal((side, side, 1), dtype=np.float32)
    objects.sort(key=lambda o: o["id"])
    return dict(seed=lay["seed"], image=np.clip(im, 0, 255).astype(np.uint8), owner=owner, objects=objects,
                haze=haze, context=lay["context"])


def scene(seed, scale=1, strength=0.0):
    """Layout and pixels of one seed."""
    return render(layout(seed), scale, strength)


def kinds_of(sc):
    """name -> list of its objects, in the order in which a caption tells them: best visible first."""
    kinds = {}
    for o in sc["objects"]:
        kinds.setdefault(o["name"], []).append(o)
    power = {n: sum(o["drawn"] ** 2 * o["alpha"] for o in v) for n, v in kinds.items()}
    return {n: kinds[n] for n in sorted(kinds, key=lambda n: -power[n])}


def patch_targets(sc):
    """Per-patch training targets of the vision tower.

    Returns class (0 = background, i+1), and per patch x, y, size, count-1 and place cell (0..8) of the
    object that covers most of the patch.
    """
    objs = sc["objects"]
    own = sc["owner"].reshape(GRID, PATCH, GRID, PATCH)
    cover = np.stack([(own == i).sum((1, 3)) for i in range(len(objs))])
    best = cover.argmax(0)
    ids = np.array([INDEX[o["name"]] for o in objs])
    cls = np.where(cover.max(0) >= 20, ids[best] + 1, 0).astype(np.int64)
    names = [o["name"] for o in objs]
    rows = [(o["x"] / SIDE - 0.5, o["y"] / SIDE - 0.5, o["drawn"] / SIDE - 0.25,
             min(names.count(o["name"]), 4) - 1, cell(o["x"]) + 3 * cell(o["y"])) for o in objs]
    return cls.reshape(-1), np.array(rows, np.float32)[best].reshape(-1, 5)


def cell(v):
    """0, 1 or 2: which third (by LOW and HIGH) a pixel coordinate falls into."""
    return 0 if v < SIDE * LOW else 2 if v > SIDE * HIGH else 1


def write_heldout(out, n, seed0=0):
    """Write n scenes as PNG with COCO-instances annotations."""
    os.makedirs(os.path.join(out, "images"), exist_ok=True)
    images, annotations = [], []
    for i in range(n):
        sc = scene(seed0 + i)
        name = f"scene_{seed0 + i:06d}.png"
        Image.fromarray(sc["image"]).save(os.path.join(out, "images", name), optimize=True)
        images.append(dict(id=seed0 + i, file_name=name, width=SIDE, height=SIDE,
                           context=CONTEXT_NAMES[sc["context"]], haze=round(sc["haze"], 4)))
        for o in sc["objects"]:
            visible = int((sc["owner"] == o["id"]).sum())
            annotations.append(dict(
                id=len(annotations) + 1, image_id=seed0 + i, category_id=OBJECTS[o["name"]][0], iscrowd=0,
                bbox=[round(float(v), 2) for v in o["box"]], area=visible,
                alpha=round(o["alpha"], 4), typical=o["typical"], hidden=o["hidden"]))
    categories = [dict(id=i, name=n, supercategory="object") for n, (i, _) in OBJECTS.items()]
    info = dict(description="Scenes of Noto Color Emoji glyphs (SIL OFL 1.1) for the toy demo model", version="1")
    with open(os.path.join(out, "instances.json"), "w", encoding="utf-8") as f:
        json.dump(dict(info=info, images=images, annotations=annotations, categories=categories), f)
        f.write("\n")


def write_sheet(path, seed0=0, rows=4, strength=0.0):
    """A contact sheet of rows x rows scenes, to look at."""
    sheet = Image.new("RGB", (rows * 230, rows * 230), "white")
    for i in range(rows * rows):
        im = Image.fromarray(scene(seed0 + i, strength=strength)["image"]).resize((224, 224), Image.NEAREST)
        sheet.paste(im, (i % rows * 230, i // rows * 230))
    sheet.save(path)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", help="write a held-out set (images/ and instances.json) to this folder")
    ap.add_argument("--n", type=int, default=200)
    ap.add_argument("--seed0", type=int, default=0)
    ap.add_argument("--sheet", help="write a contact sheet to this PNG")
    ap.add_argument("--strength", type=float, default=0.0)
    args = ap.parse_args()
    if args.sheet:
        write_sheet(args.sheet, args.seed0, strength=args.strength)
    if args.out:
        write_heldout(args.out, args.n, args.seed0)


if __name__ == "__main__":
    main()
