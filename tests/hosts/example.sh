#!/usr/bin/env bash
# examples/host_llama_cpp is built against the installed library and says what candid says.
# Given: SOURCE_DIR, BUILD_DIR, CANDID, MODEL (without .gguf), LLAMA_CPP_DIR, LLAMA_CPP_BUILD.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cmake --install "$BUILD_DIR" --prefix "$work/installed" >"$work/log"
cmake -S "$SOURCE_DIR/examples/host_llama_cpp" -B "$work/host" -DLLAMA_CPP_DIR="$LLAMA_CPP_DIR" \
    -DLLAMA_CPP_BUILD="$LLAMA_CPP_BUILD" -DCMAKE_PREFIX_PATH="$work/installed" -DCMAKE_BUILD_TYPE=Release >>"$work/log"
cmake --build "$work/host" >>"$work/log" || { cat "$work/log"; exit 1; }
host="$work/host/host_llama_cpp"
model=(--model "$MODEL.gguf" --mmproj "$MODEL-mmproj.gguf")
images=("$SOURCE_DIR"/models/demo/heldout/images/scene_00000{0,1}.png)

for config in baseline var-demo vhr pai vcd icd; do
    options=(--config "$SOURCE_DIR/configs/$config.json")
    "$host" "${model[@]}" "${options[@]}" "${images[@]}" >"$work/host.txt"
    for image in "${images[@]}"; do
        printf '%s\t%s\n' "$image" "$("$CANDID" caption "${model[@]}" --max-new-tokens 128 "${options[@]}" "$image" 2>"$work/err")"
    done >"$work/candid.txt"
    cmp "$work/host.txt" "$work/candid.txt" || { diff "$work/host.txt" "$work/candid.txt" || true; echo "$config differs"; exit 1; }
done

"$host" "${model[@]}" --capabilities >"$work/capabilities.json"
grep -q '"vhr":{"needs":\[[^]]*\],"runs":true' "$work/capabilities.json"
! "$host" "${model[@]}" --flash-attn --set pai=true "${images[0]}" 2>"$work/err"
grep -q "flash attention" "$work/err"
