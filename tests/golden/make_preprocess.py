#!/usr/bin/env python3
"""Makes the images of tests/data/images and what Pillow and transformers make of them.

    pip install pillow==11.3.0 numpy==2.2.6 transformers==4.46.3
    python make_preprocess.py

Writes, from fixed seeds:
  tests/data/images/*               encoded images of every format and pixel type that is read
  tests/golden/decode/*.rgb         their pixels by Pillow's convert("RGB"), raw (height, width, 3)
  tests/golden/resize/*.png         Pillow's Image.resize(..., BICUBIC); *_lanczos.png: LANCZOS
  tests/golden/preprocess/*.f32     encoder inputs (3, size, size): transformers' CLIPImageProcessor (crop), and LLaVA's
                                    expand2square in front of it (pad)
  tests/fuzz/corpus/image/*         the small ones of the images again, as seeds
"""
import io
import pathlib
import shutil
import struct
import zlib

import numpy as np
import PIL
import transformers
from PIL import Image
from transformers import CLIPImageProcessor

assert PIL.__version__ == "11.3.0", PIL.__version__
assert transformers.__version__ == "4.46.3", transformers.__version__

GOLDEN = pathlib.Path(__file__).resolve().parent
IMAGES = GOLDEN.parent / "data" / "images"
CORPUS = GOLDEN.parent / "fuzz" / "corpus" / "image"
for folder in (IMAGES, GOLDEN / "decode", GOLDEN / "resize", GOLDEN / "preprocess", CORPUS):
    folder.mkdir(parents=True, exist_ok=True)

rng = np.random.default_rng(20240607)


def noise(width, height, channels=3, maximum=255, dtype=np.uint8):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return rng.integers(0, maximum + 1, shape).astype(dtype)


def smooth(width, height, grain=3):
    """Something like a photograph: soft colours, an edge, a little grain."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [128 + 90 * np.sin(x / (5.0 + c) + c) * np.cos(y / (7.0 - c)) for c in range(3)]
    picture = np.stack(planes, -1) + 60 * ((x + 2 * y) > width)[..., None] + rng.normal(0, grain, (height, width, 3))
    return np.clip(picture, 0, 255).astype(np.uint8)


# ---- resize ------------------------------------------------------------------------------------------------------

sources = {
    "noise": noise(61, 47),
    "binary": (noise(40, 33) > 127).astype(np.uint8) * 255,  # overshoots on both sides
    "row": noise(23, 1),
    "column": noise(1, 29),
    "dot": noise(1, 1),
    "large": smooth(401, 300, 0) // 4 * 4,
    "wide": noise(211, 5),
    "tall": noise(7, 150),
    "gradient": np.stack(np.broadcast_arrays(np.arange(64)[None, :] * 4, np.arange(48)[:, None] * 5,
                                             255 - np.arange(64)[None, :] * 4), -1).astype(np.uint8),
}
sizes = {
    "noise": [(61, 47), (61, 20), (30, 47), (28, 28), (90, 71), (122, 94), (7, 100), (1, 1)],
    "binary": [(13, 50), (80, 66), (39, 32)],
    "row": [(50, 1), (5, 3), (23, 4)],
    "column": [(1, 60), (4, 9), (3, 29)],
    "dot": [(1, 1), (9, 6)],
    "large": [(28, 21), (37, 28), (400, 1)],
    "wide": [(17, 17), (300, 2)],
    "tall": [(14, 14), (3, 190)],
    "gradient": [(28, 21), (100, 75)],
}
for name, pixels in sources.items():
    Image.fromarray(pixels).save(IMAGES / f"{name}.png")
    for size in sizes[name]:
        resized = Image.fromarray(pixels).resize(size, Image.BICUBIC)
        resized.save(GOLDEN / "resize" / f"{name}_{size[0]}x{size[1]}.png", optimize=True)
lanczos_sizes = {
    "noise": [(61, 20), (30, 47), (90, 71), (1, 1), (600, 9)],
    "binary": [(13, 50), (80, 66)],
    "row": [(50, 1), (5, 3)],
    "column": [(4, 9)],
    "dot": [(9, 6)],
    "large": [(28, 21)],
    "wide": [(17, 17), (300, 2)],
    "tall": [(3, 190)],
    "gradient": [(100, 75)],
}
for name, wanted in lanczos_sizes.items():
    for size in wanted:
        resized = Image.fromarray(sources[name]).resize(size, Image.LANCZOS)
        resized.save(GOLDEN / "resize" / f"{name}_{size[0]}x{size[1]}_lanczos.png", optimize=True)

# ---- preprocessing -----------------------------------------------------------------------------------------------

MEAN = [0.48145466, 0.4578275, 0.40821073]


def expand2square(image, background):
    """As in LLaVA's mm_utils.py."""
    width, height = image.size
    if width == height:
        return image
    if width > height:
        result = Image.new(image.mode, (width, width), background)
        result.paste(image, (0, (width - height) // 2))
        return result
    result = Image.new(image.mode, (height, height), background)
    result.paste(image, ((height - width) // 2, 0))
    return result


for name, size in [("noise", 28), ("large", 56), ("large", 31), ("wide", 28), ("tall", 28), ("row", 14),
                   ("column", 14), ("dot", 14), ("gradient", 32), ("binary", 40)]:
    processor = CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    image = Image.fromarray(sources[name])
    square = expand2square(image, tuple(int(x * 255) for x in processor.image_mean))
    for mode, prepared in (("crop", image), ("pad", square)):
        tensor = processor(prepared, return_tensors="np", input_data_format="channels_last")["pixel_values"][0]
        assert tensor.dtype == np.float32 and tensor.shape == (3, size, size)
        tensor.astype("<f4").tofile(GOLDEN / "preprocess" / f"{name}_{mode}_{size}.f32")

# ---- decoding ----------------------------------------------------------------------------------------------------

W, H = 13, 9


def encoded(image, file_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width, height, depth, colour, raw, extra=b"", interlace=0):
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(raw, 9)) +
            chunk(b"IEND", b""))


def rows(array):
    return b"".join(b"\0" + row.tobytes() for row in array)


def adam7(array):
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    parts = [array[y::dy, x::dx] for x, y, dx, dy in passes]
    return b"".join(rows(part) for part in parts if part.size)


def bmp(width, height, bits, raster, compression=0, front=b"", header_size=40):
    if header_size == 12:
        header = struct.pack("<IHHHH", 12, width, height, 1, bits) + front
    else:
        header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, 0, 0, 0, 0, 0) + front
    start = 14 + len(header)
    return b"BM" + struct.pack("<IHHI", start + len(raster), 0, 0, start) + header + raster


rgb = Image.fromarray(noise(W, H))
rgba = Image.fromarray(noise(W, H, 4))
grey = Image.fromarray(noise(W, H, 1))
palette = rgb.quantize(200)
photo = Image.fromarray(smooth(61, 47))
u16 = noise(W, H, 3, 65535, ">u2")

files = {
    "rgb.png": encoded(rgb, "PNG"),
    "grey.png": encoded(grey, "PNG"),
    "grey_alpha.png": encoded(Image.merge("LA", (grey, Image.fromarray(noise(W, H, 1)))), "PNG"),
    "grey_transparent.png": encoded(grey, "PNG", transparency=int(np.array(grey)[2, 3])),
    "rgba.png": encoded(rgba, "PNG"),
    "rgb_transparent.png": encoded(rgb, "PNG", transparency=tuple(int(v) for v in np.array(rgb)[2, 3])),
    "palette.png": encoded(palette, "PNG"),
    "palette_transparent.png": encoded(palette, "PNG", transparency=bytes(range(200))),
    "palette_2bit.png": encoded(rgb.quantize(4), "PNG", bits=2),
    "palette_short.png": png(W, H, 8, 3, rows(noise(W, H, 1)), chunk(b"PLTE", bytes(noise(30, 1)[0].tobytes()))),
    "one_bit.png": encoded(grey.convert("1"), "PNG"),
    "rgb16.png": png(W, H, 16, 2, rows(u16)),
    "rgba16.png": png(W, H, 16, 6, rows(noise(W, H, 4, 65535, ">u2"))),
    "grey_alpha16.png": png(W, H, 16, 4, rows(noise(W, H, 2, 65535, ">u2"))),
    "interlaced.png": png(W, H, 8, 2, adam7(noise(W, H)), interlace=1),
    "row.bmp": encoded(Image.fromarray(noise(W, 1)), "BMP"),
    "rgb.bmp": encoded(rgb, "BMP"),
    "palette.bmp": encoded(palette, "BMP"),
    "one_bit.bmp": encoded(grey.convert("1"), "BMP"),
    "top_down_565.bmp": bmp(W, -H, 16, noise(W + 1, H, 1, 65535, "<u2").tobytes(), 3,
                            struct.pack("<III", 0xF800, 0x7E0, 0x1F)),
    "rgb555.bmp": bmp(W, H, 16, noise(W + 1, H, 1, 65535, "<u2").tobytes()),
    "rgbx.bmp": bmp(W, H, 32, noise(W, H, 4).tobytes()),
    "os2.bmp": bmp(W, H, 8, noise(16, H, 1).tobytes(), 0, noise(256, 1).tobytes(), 12),
    "palette.gif": encoded(palette, "GIF"),
    "transparent.gif": encoded(palette, "GIF", transparency=int(np.array(palette)[4, 4])),
    "animated.gif": encoded(rgb, "GIF", save_all=True, append_images=[rgb.rotate(180)]),
    "rgb.ppm": encoded(rgb, "PPM"),
    "grey.pgm": encoded(grey, "PPM"),
    "max100.ppm": b"P6\n# with a comment\n13 9\n100\n" + noise(W, H, 3, 100).tobytes(),
    "rgb16.ppm": b"P6 13 9 65535\n" + u16.tobytes(),
    # JPEG decoders round differently: compared with a tolerance.
    "444.jpg": encoded(photo, "JPEG", quality=90, subsampling=0),
    "420.jpg": encoded(photo, "JPEG", quality=90, subsampling=2),
    "progressive.jpg": encoded(photo, "JPEG", quality=90, subsampling=2, progressive=True),
    "restart.jpg": encoded(photo, "JPEG", quality=90, restart_marker_blocks=2),
    "grey.jpg": encoded(photo.convert("L"), "JPEG", quality=90),
    "cmyk.jpg": encoded(photo.convert("CMYK"), "JPEG", quality=95),
    # Orientation 6 (rotated): Pillow's open leaves the pixels as they are.
    "rotated.jpg": encoded(photo, "JPEG", quality=90, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0"
                                                         b"\0\0\0\0"),
}
gif = bytearray(files["transparent.gif"])
descriptor = gif.index(b"\x2c\0\0\0\0", 13 + 3 * (2 << (gif[10] & 7)))
gif[6:10] = struct.pack("<HH", 20, 15)
gif[descriptor + 1:descriptor + 5] = struct.pack("<HH", 4, 3)
files["part_of_canvas.gif"] = bytes(gif)

for name, data in files.items():
    (IMAGES / name).write_bytes(data)
    decoded = Image.open(io.BytesIO(data)).convert("RGB")
    (GOLDEN / "decode" / (name + ".rgb")).write_bytes(np.array(decoded).tobytes())

# 16-bit greyscale: Pillow clips; the expectation is the high byte.
u16 = noise(W, H, 1, 65535, ">u2")
(IMAGES / "grey16.png").write_bytes(png(W, H, 16, 0, rows(u16)))
(GOLDEN / "decode" / "grey16.png.rgb").write_bytes(np.repeat((u16 >> 8).astype(np.uint8)[..., None], 3, 2).tobytes())

# Files that are wrong or not supported in a way that the tests cannot make from the good ones.
bad = {
    "bad_size.png": png(65536, 65536, 8, 2, b""),
    "bad_zlib.png": png(W, H, 8, 2, rows(noise(W, H))[:-1]),
    "bad_palette.png": png(W, H, 8, 3, rows(noise(W, H, 1))),
    "bad_critical.png": png(W, H, 8, 2, rows(noise(W, H)), chunk(b"ABCD", b"x")),
}
for name, data in bad.items():
    (IMAGES / name).write_bytes(data)

shutil.rmtree(CORPUS)
CORPUS.mkdir()
for path in sorted(IMAGES.iterdir()):
    if path.stat().st_size <= 2500:
        shutil.copy(path, CORPUS / path.name)

# ---- resizes of the other modes: converted to RGB first, as LLaVA does --------------------------------------------

MODES = ["grey.png", "grey_alpha.png", "one_bit.png", "palette.png", "palette_transparent.png", "palette_2bit.png", "rgba.png",
         "interlaced.png", "rgb_transparent.png", "palette.gif", "palette.bmp", "one_bit.bmp", "rgb555.bmp", "grey.pgm", "rgb.ppm"]
for i, name in enumerate(MODES):
    size = (13 + 7 * i, 97 - 6 * i)
    image = Image.open(IMAGES / name).convert("RGB").resize(size, Image.BICUBIC)
    image.save(GOLDEN / "resize" / f"{name}_{size[0]}x{size[1]}.png", optimize=True)
