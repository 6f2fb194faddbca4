#!/usr/bin/env bash
# The demo model in llama.cpp against candid's exact path: logits of every step, contrasts included, within float
# arithmetic's noise; for methods one by one, in a cache with holes, cut into small ubatches, and with flash attention.
# Given: SOURCE_DIR, RECORD, AGREE, MODEL (without .gguf); works in the current directory.
set -euo pipefail
question="Please help me describe the image in detail."
images=("$SOURCE_DIR"/models/demo/heldout/images/scene_00000{0,1}.png)
failed=0

# check CONFIG|- KV TOLERANCE OPTIONS...
check() {
    local config=$1 kv=$2 tolerance=$3
    shift 3
    local file=- options=()
    if [ "$config" != - ]; then
        file=$SOURCE_DIR/configs/$config.json
        options=(--config "$file")
    fi
    "$RECORD" "$MODEL.gguf" "$MODEL-mmproj.gguf" recorded.bin "$file" "$question" 16 "$kv" "${images[@]}" >/dev/null
    printf '%-16s %-24s ' "$config" "$kv $*"
    "$AGREE" "$MODEL.gguf" "$MODEL-mmproj.gguf" recorded.bin --kv "$kv" --tolerance "$tolerance" "${options[@]}" "$@" \
        "${images[@]}" || failed=1
}

for config in - var-demo vhr pai paint hgai act vista cca mma head-scale-demo vcd damro icd icd-question lqcd stack-vhr-pai; do
    check $config f32 1e-5
done
for config in var-demo vhr pai mma cca; do
    check $config f32 1e-5 --hole
done
check pai f32 1e-5 --ubatch 40
check pai f16 2e-3
for config in - vhr mma cca; do # keys and values are f16 then
    check $config f16 5e-3 --flash-attn
done
exit $failed
