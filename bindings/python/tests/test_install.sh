#!/usr/bin/env bash
# pip install ./bindings/python into a fresh environment, and what it says where a library is missing.
. "$SOURCE_DIR/bindings/python/tests/common.sh"
cd "$work" || exit 1

# A missing library is named with its Debian package.
configure() { cmake -S "$SOURCE_DIR/bindings/python" -B "$work/$1" "${@:2}" >"$work/out" 2>&1; }
configure no_dnnl -DCMAKE_DISABLE_FIND_PACKAGE_dnnl=ON && fail "configured without oneDNN"
grep -q "install libdnnl-dev" "$work/out" || fail "oneDNN's package is not named: $(cat "$work/out")"
configure no_stb -DSTB_INCLUDE_DIR= && fail "configured without stb"
grep -q "install libstb-dev" "$work/out" || fail "stb's package is not named: $(cat "$work/out")"
mkdir "$work/pc"
PKG_CONFIG_LIBDIR=$work/pc configure no_cjson && fail "configured without cJSON"
grep -q "install libcjson-dev" "$work/out" || fail "cJSON's package is not named: $(cat "$work/out")"
cp "$(pkg-config --variable=pcfiledir libcjson)/libcjson.pc" "$work/pc/"
PKG_CONFIG_LIBDIR=$work/pc configure no_jpeg && fail "configured without libjpeg"
grep -q "install libjpeg-dev" "$work/out" || fail "libjpeg's package is not named: $(cat "$work/out")"
PKG_CONFIG_LIBDIR=$work/pc configure stb_jpeg -DCANDID_LIBJPEG=OFF || fail "stb_image for JPEG: $(tail -5 "$work/out")"

# The real thing.
for candidate in ${python:+"$python"} python3 /usr/bin/python3; do
    "$candidate" -m venv "$work/venv" >"$work/out" 2>&1 && break
done
[ -x "$work/venv/bin/pip" ] || skip "cannot make a virtual environment: install python3-venv"
pip=("$work/venv/bin/pip" --disable-pip-version-check --quiet --retries 1)
"${pip[@]}" download --dest "$work/wheels" scikit-build-core numpy >"$work/out" 2>&1 ||
    skip "scikit-build-core and numpy cannot be downloaded: $(tail -1 "$work/out")"
start=$SECONDS
"${pip[@]}" install "$SOURCE_DIR/bindings/python" >"$work/out" 2>&1 || fail "pip install: $(tail -40 "$work/out")"
echo "pip install took $((SECONDS - start)) s"
unset CANDID_LIBRARY PYTHONPATH
"$work/venv/bin/python" -W error - "$SOURCE_DIR/examples/zoo_4.png" >"$work/out" 2>&1 <<'PYTHON' || fail "$(cat "$work/out")"
import importlib.metadata
import pathlib
import sys

import candid

package = pathlib.Path(candid.__file__).parent
assert package.parts[-2] == "site-packages", package
names = {path.name for path in package.iterdir()}
assert {"libcandid.so", "candid-demo.gguf", "py.typed"} <= names, names
assert importlib.metadata.version("candid") == candid.__version__ == candid.version()
assert importlib.metadata.requires("candid") == ["numpy>=1.21"]
model = candid.Model.demo()
print(model.caption(sys.argv[1]))
assert "numpy" in sys.modules and "PIL" not in sys.modules and "matplotlib" not in sys.modules
PYTHON
grep -q "^The image shows a zoo scene" "$work/out" || fail "the installed package says: $(cat "$work/out")"
# Nothing that is not in the repository was left in it.
[ -z "$(find "$SOURCE_DIR/bindings/python" -name build -o -name '*.egg-info' -o -name '*.so')" ] ||
    fail "pip left files in the source tree"
