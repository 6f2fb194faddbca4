#!/usr/bin/env bash
# The package's unit tests with the library of this build.
. "$SOURCE_DIR/bindings/python/tests/common.sh"
[ -n "$python" ] || skip "no python3 with numpy: install python3-numpy"
cd "$work" || exit 1
export CANDID_LIBRARY=$LIBCANDID PYTHONPATH=$SOURCE_DIR/bindings/python
"$python" -W error -m unittest discover -s "$SOURCE_DIR/bindings/python/tests" -t "$SOURCE_DIR/bindings/python"
