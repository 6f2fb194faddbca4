"""Makes tests/golden/look_twice.safetensors: second images by scikit-image, SciPy, NumPy and Pillow, which AGLA, ViCrop and
CARVE are written in. Read by tests/unit/test_relevance.c and tests/unit/test_look_twice.c.

    python3 -m venv /tmp/look && /tmp/look/bin/pip install numpy==2.4.6 scipy==1.17.1 scikit-image==0.26.0 \
        pillow==11.3.0 safetensors
    /tmp/look/bin/python tests/golden/make_look_twice.py            # writes the file
    /tmp/look/bin/python tests/golden/make_look_twice.py --check    # computes it again and compares

  relevance.NAME.map       (rows, cols): a map
  relevance.NAME.soft      every seventh row and column, from the fourth on, of the smooth picture that AGLA makes of it
  relevance.NAME.mask.PP   the pixels of it that survive with keep = PP %, packed by numpy.packbits
  carve.NAME.question, .general   (steps, layers, rows * cols): attention
  carve.NAME.info          rows, cols, first step only, width, height, box (left, top, right, bottom), width and height of
                           the enlarged cut, CRC-32 of its pixels
  carve.NAME.mask          pixels that stay, packed
  vicrop.cases             (cases, 11): rows, cols, width, height, side, seed, hot row, hot column, box: left, top, right,
                           bottom; the map is that of hashed_map()
"""
import argparse
import os
import zlib

import numpy as np
from PIL import Image
from safetensors.numpy import load_file, save_file
from scipy import ndimage
from skimage.transform import resize

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "look_twice.safetensors")
IMAGES = os.path.join(HERE, "..", "data", "images")
rng = np.random.default_rng(20250612)


# ---- AGLA ---------------------------------------------------------------------------------------------------------

def blobs(rows, cols, count=3):
    """Something like attention: a few smooth hills over noise, positive."""
    y, x = np.mgrid[0:rows, 0:cols]
    result = rng.random((rows, cols)) * 0.1
    for _ in range(count):
        cy, cx, size = rng.random() * rows, rng.random() * cols, (0.05 + 0.2 * rng.random()) * max(rows, cols)
        result += rng.random() * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * size ** 2))
    return result.astype(np.float32)


def soften(values):
    m = values - values.min()
    if m.max() > 0:
        m = m / m.max()
    m = resize(m, (384, 384), order=3, mode="constant")
    m = ndimage.gaussian_filter(m, 0.02 * 384)
    m = m - m.min()
    return m / m.max()


def relevance(out):
    maps = {"vit": blobs(24, 24), "raw": rng.random((24, 24)).astype(np.float32), "odd": blobs(5, 7, 1),
            "line": rng.random((1, 9)).astype(np.float32), "tall": blobs(390, 30), "same": blobs(384, 384)[:384, :3],
            "negative": rng.normal(size=(6, 6)).astype(np.float32)}
    for name, values in maps.items():
        out[f"relevance.{name}.map"] = values
        soft = soften(values.copy())
        out[f"relevance.{name}.soft"] = soft[3::7, 3::7].astype(np.float32)
        for keep in ((10, 65) if name in ("vit", "odd") else ()):
            least = np.sort(soft.ravel())[::-1][int(384 * 384 * keep / 100)]
            out[f"relevance.{name}.mask.{keep}"] = np.packbits(soft >= least)


# ---- CARVE --------------------------------------------------------------------------------------------------------

def carve(out):
    cases = {"noise": ("noise.png", 24, 24, 3, 2, False), "first": ("noise.png", 24, 24, 3, 2, True),
             "large": ("large.png", 24, 24, 3, 2, False), "small_grid": ("large.png", 4, 4, 1, 1, False),
             "wide": ("wide.png", 3, 50, 2, 2, False), "hilly": ("gradient.png", 24, 24, 2, 3, False)}
    for name, (file, rows, cols, steps, layers, first) in cases.items():
        image = np.array(Image.open(os.path.join(IMAGES, file)).convert("RGB"))
        height, width = image.shape[:2]
        question = rng.random((steps, layers, rows * cols)).astype(np.float32) ** 4 / 100
        if name == "hilly":
            question += blobs(rows, cols).reshape(-1) / 100
        general = (rng.random((steps + 1, layers, rows * cols)) + 0.2).astype(np.float32) / 600
        total = np.zeros((height, width))
        for t in range(1 if first else steps):
            for layer in range(layers):
                contrast = question[t, layer] / (general[t, layer] + 1e-8)
                grid = Image.fromarray(contrast.reshape(rows, cols).astype(np.float32))
                total += (1 if first else t + 1) * np.asarray(grid.resize((width, height), Image.BILINEAR))
        above = total >= np.percentile(total, 80)
        label, count = ndimage.label(above)
        sums = ndimage.sum(total, label, np.arange(1, count + 1))
        order = np.argsort(-sums, kind="stable")[:max(3, int(count * 0.2))]
        stays = np.isin(label, order + 1)
        rows_kept, cols_kept = np.where(stays.any(1))[0], np.where(stays.any(0))[0]
        box = cols_kept[0], rows_kept[0], cols_kept[-1] + 1, rows_kept[-1] + 1
        cut = Image.fromarray(image * stays[..., None].astype(np.uint8)).crop(tuple(int(b) for b in box))
        scale = max(width / cut.width, height / cut.height)
        refined = cut.resize((int(cut.width * scale), int(cut.height * scale)), Image.LANCZOS)
        print(f"carve {name}: {count} regions, box {box}, {refined.size}")
        crc = np.array([zlib.crc32(refined.tobytes())], np.uint32).view(np.int32)
        out[f"carve.{name}.question"], out[f"carve.{name}.general"] = question, general
        out[f"carve.{name}.info"] = np.concatenate([np.array([rows, cols, first, width, height, *box, *refined.size],
                                                             np.int32), crc])
        out[f"carve.{name}.mask"] = np.packbits(stays)


# ---- ViCrop -------------------------------------------------------------------------------------------------------

def hashed_map(rows, cols, seed, hot_row, hot_col):
    """Fourth powers of hashed numbers, eightfold within two cells of the hot one."""
    i = np.arange(rows * cols, dtype=np.uint64) + np.uint64(1000 * seed + 1)
    i = (i * np.uint64(2654435761)) % np.uint64(2 ** 32)
    i = ((i ^ (i >> np.uint64(15))) * np.uint64(2246822519)) % np.uint64(2 ** 32)
    u = i / 2.0 ** 32
    values = (u * u * u * u).reshape(rows, cols)
    y, x = np.mgrid[0:rows, 0:cols]
    return (values * np.where((abs(y - hot_row) <= 2) & (abs(x - hot_col) <= 2), 8, 1)).astype(np.float32)


def box_of(values, width, height, side):
    """From the description of the method: windows of whole cells, the sharpest ratio, a square around its centre."""
    values = values.astype(np.float64)
    rows, cols = values.shape
    cell = width / cols, height / rows
    best = None
    for ratio in (1, 1.2, 1.4, 1.6, 1.8, 2):
        w, h = (min(max(int(side * ratio / c), 1), n) for c, n in zip(cell, (cols, rows)))
        if w == cols and h == rows:
            if ratio == 1:
                return 0, 0, width, height
            continue
        sums = np.array([[values[y:y + h, x:x + w].sum() for x in range(cols - w + 1)] for y in range(rows - h + 1)])
        x, y = divmod(int(sums.T.argmax()), sums.shape[0])
        near = [sums[y + dy, x + dx] for dy, dx in ((0, -1), (0, 1), (-1, 0), (1, 0))
                if 0 <= y + dy < sums.shape[0] and 0 <= x + dx < sums.shape[1]]
        sharpness = (sums[y, x] - np.mean(near)) / (w * h)
        if best is None or sharpness > best[0]:
            best = sharpness, int(x * cell[0] + cell[0] * w / 2), int(y * cell[1] + cell[1] * h / 2), side * ratio // 2
    ends = []
    for centre, size in ((best[1], width), (best[2], height)):
        centre = max(centre, best[3])
        centre = size - best[3] if centre > size - best[3] else centre
        ends.append((max(0, centre - best[3]), min(size, centre + best[3])))
    return int(ends[0][0]), int(ends[1][0]), int(ends[0][1]), int(ends[1][1])


def vicrop(out):
    cases = []
    sizes = [(640, 480), (480, 640), (1024, 768), (2000, 400), (400, 2000), (336, 336), (337, 336), (300, 200), (500, 337),
             (3000, 3000), (672, 672), (350, 1300), (7000, 5000)]
    for number in range(130):
        width, height = sizes[number % len(sizes)]
        rows, cols, side = ((24, 24, 336), (16, 16, 224), (12, 30, 336))[number // len(sizes) % 3]
        hot = int(rng.integers(0, rows)), int(rng.integers(0, cols))
        box = box_of(hashed_map(rows, cols, number, *hot), width, height, side)
        cases.append([rows, cols, width, height, side, number, *hot, *box])
    out["vicrop.cases"] = np.array(cases, np.int32)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    made = {}
    relevance(made)
    carve(made)
    vicrop(made)
    made = {k: np.ascontiguousarray(v) for k, v in made.items()}
    if not arguments.check:
        save_file(made, OUT)
        os.chmod(OUT, 0o644)
        return
    kept = load_file(OUT)
    assert kept.keys() == made.keys()
    print("largest difference", max(float(np.abs(kept[k].astype(float) - made[k]).max()) for k in kept))


if __name__ == "__main__":
    main()
