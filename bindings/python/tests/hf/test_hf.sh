#!/usr/bin/env bash
# candid.hf with the library of this build, where an interpreter with torch and transformers is found.
set -uo pipefail
python=${CANDID_HF_PYTHON:-python3}
if ! "$python" -c 'import torch, transformers' 2>/dev/null; then
    echo "SKIPPED: $python has no torch and transformers; CANDID_HF_PYTHON names one that has" >&2
    exit 77
fi
export CANDID_LIBRARY=$LIBCANDID PYTHONPATH=$SOURCE_DIR/bindings/python PYTHONDONTWRITEBYTECODE=1
cd "$SOURCE_DIR/bindings/python/tests/hf" && exec "$python" -m unittest -v test_hf test_hf_golden test_hf_equality
