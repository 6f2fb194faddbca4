#!/usr/bin/env python3
"""Draws docs/result.png: an example image beside what candid says about it (real output of the program).

    python3 tools/demo/result_picture.py [--candid build/release/candid] [--image examples/….png] [--out docs/result.png]

Needs Pillow and the DejaVu fonts (Debian fonts-dejavu-core).
"""
import argparse
import pathlib
import subprocess
import textwrap

from PIL import Image, ImageDraw, ImageFont

ROOT = pathlib.Path(__file__).resolve().parents[2]
FONTS = pathlib.Path("/usr/share/fonts/truetype/dejavu")
SIDE, PANEL, MARGIN = 448, 760, 28


def run(candid, *arguments):
    """Standard output of the program and the speed line it writes to standard error."""
    done = subprocess.run([candid, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip(), done.stderr.strip().splitlines()[-1]


def draw_block(draw, x, y, text, font, fill, width):
    """Wraps text to `width` characters; returns the y below it."""
    for line in textwrap.wrap(text, width):
        draw.text((x, y), line, font=font, fill=fill)
        y += font.size + 8
    return y + 8


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candid", default=ROOT / "build/release/candid")
    parser.add_argument("--image", type=pathlib.Path, default=sorted((ROOT / "examples").glob("*.png"))[0])
    parser.add_argument("--question", action="append", default=[], help="may be given several times")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "docs/result.png")
    a = parser.parse_args()

    mono = ImageFont.truetype(str(FONTS / "DejaVuSansMono.ttf"), 17)
    text = ImageFont.truetype(str(FONTS / "DejaVuSans.ttf"), 20)
    small = ImageFont.truetype(str(FONTS / "DejaVuSansMono.ttf"), 13)
    picture = Image.new("RGB", (SIDE + PANEL + 3 * MARGIN, SIDE + 2 * MARGIN), "white")
    picture.paste(Image.open(a.image).convert("RGB").resize((SIDE, SIDE), Image.LANCZOS), (MARGIN, MARGIN))
    draw = ImageDraw.Draw(picture)
    x, y = SIDE + 2 * MARGIN, MARGIN

    caption, speed = run(a.candid, "caption", str(a.image))
    y = draw_block(draw, x, y, f"$ candid caption {a.image.name}", mono, "#666666", 70)
    y = draw_block(draw, x, y, caption, text, "#111111", 66)
    for question in a.question:
        answer, _ = run(a.candid, "ask", "-q", question, str(a.image))
        y = draw_block(draw, x, y + 6, f'$ candid ask -q "{question}" {a.image.name}', mono, "#666666", 70)
        y = draw_block(draw, x, y, answer, text, "#111111", 66)
    draw_block(draw, x, SIDE + MARGIN - 40, speed, small, "#999999", 94)
    picture.save(a.out, optimize=True)


if __name__ == "__main__":
    main()
