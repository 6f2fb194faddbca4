#!/usr/bin/env bash
# Writes 20 JPEGs of the demo scenes with Pillow (quality 75 and 90, 4:4:4, 4:2:2 and 4:2:0, baseline and progressive, odd sizes) with
# their pixels by Pillow, and measures how far each JPEG decoder of candid is from them: tests/golden/measure_jpeg.sh
# Needs python3 with pillow, numpy and the font (tools/demo/requirements.txt), and libjpeg-dev. Results: docs/exactness.md.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" - "$work" <<'PY'
import sys
sys.path.insert(0, "tools/demo")
import scenes
from PIL import Image
for i in range(20):
    im = Image.fromarray(scenes.scene(9000 + i, scale=4)["image"]).crop((0, 0, 448 - i, 448 - 7 * (i % 5)))
    path = f"{sys.argv[1]}/{i:02}.jpg"
    im.save(path, quality=(75, 90)[i % 2], subsampling=(2, 0, 1, 2)[i % 4], progressive=i % 3 == 0)
    Image.open(path).convert("RGB").save(path + ".ppm")
PY
for option in ON OFF; do
    cmake -S . -B "$work/build" -DCMAKE_BUILD_TYPE=Release -DCANDID_BUILD_TESTS=OFF -DCANDID_LIBJPEG=$option >/dev/null
    cmake --build "$work/build" --target candid_static -j 2 >/dev/null
    libs="-lcjson -ldnnl -fopenmp -lm"
    [ $option = ON ] && libs="$libs -ljpeg"
    cc -std=gnu11 -O2 -Isrc -Iinclude -I/usr/include/cjson tests/golden/jpeg_difference.c "$work/build/libcandid_static.a" \
        $libs -o "$work/difference"
    "$work/difference" models/demo/candid-demo.gguf "$work"/*.jpg | sed "s|$work/||"
done
