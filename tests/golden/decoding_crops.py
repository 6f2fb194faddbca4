"""Part of make_decoding.py: ViCrop and CARVE, methods of two passes that cut a part out of the image for the second."""
import math
import os

import numpy as np
import torch
from PIL import Image

from make_interventions import ROOT, Margins, layer_set
from decoding_rows import Row, Plain, conversation

GENERAL = "Write a general description of the image."
DEFAULTS = dict(vicrop=dict(layers="14", general=GENERAL, geometry="whole"),
                carve=dict(layers="20-25", general=GENERAL, steps=32, weights="linear", images="both"))
RATIOS = (1, 1.2, 1.4, 1.6, 1.8, 2)


class Watching(Plain):
    """Keeps, of every layer, the last row's probabilities of the image's tokens, mean of the heads."""

    def __init__(self, oracle, prompt):
        super().__init__(oracle, prompt)
        self.image, self.maps = slice(prompt.s, prompt.s + prompt.k), {}

    def probabilities(self, layer, a, visible):
        self.maps[layer] = a[:, -1, self.image].double().mean(0)
        return super().probabilities(layer, a, visible)


def watch(oracle, image, question, steps, margins):
    """(maps of every step and layer (steps, layers, K), tokens): greedy, up to `steps` tokens, the end token the last."""
    prompt = oracle.prompt_of(conversation(question), oracle.see(image))
    run = Watching(oracle, prompt)
    row, maps, tokens = Row(oracle, prompt, run, {}), [], []
    while len(tokens) < steps and (not tokens or tokens[-1] != oracle.eos):
        z = row.after(tokens)["logits"]
        maps.append(torch.stack([run.maps[i] for i in range(oracle.n_layers)]))
        top = z.topk(2).values
        if steps > 1:
            margins.note("argmax", (top[0] - top[1]) / z.abs().max())
        tokens.append(int(z.argmax()))
    return torch.stack(maps), tokens


def select_box(m, width, height, size, margins):
    """ViCrop: (box, what was found for every ratio) from the map (rows, columns); size: the image encoder's."""
    rows, columns = m.shape
    bx, by, found = width / columns, height / rows, []
    for r in RATIOS:
        wx, wy = min(int(size * r / bx), columns), min(int(size * r / by), rows)
        if wx == columns and wy == rows:
            if r == 1:
                return [0, 0, width, height], []
            continue
        sums = np.array([[float(m[y:y + wy, x:x + wx].sum()) for y in range(rows - wy + 1)]
                         for x in range(columns - wx + 1)])
        x, y = np.unravel_index(sums.argmax(), sums.shape)
        ordered = np.sort(sums.ravel())
        margins.note("vicrop.position", 1 - ordered[-2] / ordered[-1])
        around = [sums[i, j] for i, j in ((x, y - 1), (x, y + 1), (x - 1, y), (x + 1, y))
                  if 0 <= i < sums.shape[0] and 0 <= j < sums.shape[1]]
        found.append(dict(ratio=r, window=[wx, wy], position=[int(x), int(y)],
                          sharpness=float((sums[x, y] - np.mean(around)) / (wx * wy))))
    sharp = [f["sharpness"] for f in found]
    best = found[int(np.argmax(sharp))]
    for f in found:
        if f["window"] != best["window"]:       # equal windows are equally sharp: the first ratio
            margins.note("vicrop.sharpness", 1 - f["sharpness"] / max(best["sharpness"], 1e-30))
    half, box = math.floor(size * best["ratio"] / 2), []
    for axis, (block, whole) in enumerate(((bx, width), (by, height))):
        centre = int(best["position"][axis] * block + block * best["window"][axis] / 2)
        centre = min(max(centre, half), whole - half)
        box.append((max(0, centre - half), min(whole, centre + half)))
    return [box[0][0], box[1][0], box[0][1], box[1][1]], found


def components(mask):
    """4-connected components of a mask, in the order of their first pixels: list of boolean masks."""
    label, out = np.zeros(mask.shape, int), []
    for y, x in np.argwhere(mask):
        if label[y, x]:
            continue
        out.append(np.zeros(mask.shape, bool))
        label[y, x], todo = len(out), [(y, x)]
        while todo:
            i, j = todo.pop()
            out[-1][i, j] = True
            for a, b in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                if 0 <= a < mask.shape[0] and 0 <= b < mask.shape[1] and mask[a, b] and not label[a, b]:
                    label[a, b] = len(out)
                    todo.append((a, b))
    return out


def refine(picture, m, margins):
    """CARVE: (the refined picture, what was found) from the map (rows, columns)."""
    width, height = picture.size
    large = torch.nn.functional.interpolate(torch.as_tensor(m)[None, None], size=(height, width), mode="bilinear",
                                            align_corners=False)[0, 0].numpy()
    bound = np.percentile(large, 80)
    margins.note("carve.threshold", np.abs(large - bound) / bound)
    parts = components(large >= bound)
    sums = [float(large[p].sum()) for p in parts]
    order = sorted(range(len(parts)), key=lambda i: -sums[i])
    count = max(3, int(0.2 * len(parts)))
    if len(parts) > count:
        margins.note("carve.component", 1 - sums[order[count]] / sums[order[count - 1]])
    kept = np.any([parts[i] for i in order[:count]], 0)
    ys, xs = np.nonzero(kept)
    box = [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]
    pixels = np.where(kept[..., None], np.asarray(picture), 0).astype(np.uint8)
    cut = Image.fromarray(pixels).crop(box)
    factor = max(width / cut.width, height / cut.height)
    exact = [cut.width * factor, cut.height * factor]
    size = [round(x) for x in exact]
    margins.note("carve.size", min(0.5 - (x - math.floor(x)) for x in exact))    # cut off or rounded: the same
    return cut.resize(size, Image.LANCZOS), dict(parts=len(parts), kept=min(count, len(parts)), pixels=int(kept.sum()),
                                                 box=box, size=size)


def run(oracle, image, question, config, steps):
    """dict: both passes."""
    margins = Margins()
    picture = Image.open(os.path.join(ROOT, image)).convert("RGB")
    method = next(m for m in DEFAULTS if m in config)
    o = {**DEFAULTS[method], **config[method]}
    length, layers = 1 if method == "vicrop" else o["steps"], sorted(layer_set(o["layers"], oracle.n_layers))
    asked, tokens = watch(oracle, image, question, length, margins)
    general, general_tokens = watch(oracle, image, o["general"], length, margins)
    side, found = oracle.side, {}
    if method == "vicrop":
        a, b = asked[0, layers].mean(0), general[0, layers].mean(0)
        m = (a / b).reshape(side, side)
        box, ratios = select_box(m.numpy(), *picture.size, oracle.config.vision_config.image_size, margins)
        images = [image, picture.crop(box)]
        found.update(box=box, ratios=ratios)
        numbers = dict(question=a, general=b)
    else:
        n = min(len(asked), len(general))
        contrast = (asked[:n, layers] / (general[:n, layers] + 1e-8)).sum(1)
        weights = torch.arange(1, n + 1) if o["weights"] == "linear" else torch.tensor([1] + [0] * (n - 1))
        m = (weights[:, None] * contrast).sum(0).reshape(side, side)
        refined, more = refine(picture, m, margins)
        images = [image, refined] if o["images"] == "both" else [refined]
        found.update(more, first_tokens=tokens, general_tokens=general_tokens)
        numbers = {}
    prompt = oracle.prompt_of(conversation(question, len(images)), *(oracle.see(i) for i in images))
    row, answer, z = Row(oracle, prompt, Plain(oracle, prompt), {}), [], []
    for _ in range(steps):
        z.append(row.after(answer)["logits"])
        top = z[-1].topk(2).values
        margins.note("argmax", (top[0] - top[1]) / z[-1].abs().max())
        answer.append(int(z[-1].argmax()))
    numbers = {**{k: x.float().numpy() for k, x in numbers.items()}, "map": m.float().numpy(), "z": torch.stack(z).numpy()}
    return dict(prompt=prompt, tokens=answer, found=found, margins=margins, numbers=numbers, picture=images[-1])
