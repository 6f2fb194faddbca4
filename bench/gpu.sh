#!/usr/bin/env bash
# Speed of the CUDA backend, everything in one run: what the GPU can do, each kernel's share of it, a random
# LLaVA-1.5-7B whole, methods and searches against plain decoding, and transformers beside it where Python has it.
#
#   bench/gpu.sh [--built DIR] [--models DIR] [--types "f16 q8_0 q4_0"] [--out DIR]
#
# Writes everything it prints to OUT/gpu.txt as well. Needs numpy for the random models (bench/random_llava.py). Exits
# with 77 where there is no GPU.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=$root/build/cuda built= models=${XDG_CACHE_HOME:-$HOME/.cache}/candid-bench types="f16 q8_0 q4_0" out=$root/build/bench
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || { echo "gpu.sh: $1 needs a value" >&2; exit 2; }
    case $1 in
        --built) build=$(cd "$2" && pwd) || exit 2; built=1 ;;
        --models) models=$2 ;;
        --types) types=$2 ;;
        --out) out=$2 ;;
        *) echo "usage: bench/gpu.sh [--built DIR] [--models DIR] [--types LIST] [--out DIR]" >&2; exit 2 ;;
    esac
    shift 2
done
if ! command -v nvidia-smi >/dev/null || ! nvidia-smi -L 2>/dev/null | grep -q GPU; then
    echo "no GPU"
    exit 77
fi
mkdir -p "$out" "$models"
exec > >(tee "$out/gpu.txt") 2>&1
if [ -z "$built" ]; then
    cmake --preset cuda -S "$root" -DCANDID_BUILD_BENCH=ON >/dev/null &&
        cmake --build "$build" -j "$(nproc)" --target candid_cli bench_gpu >"$out/build.log" 2>&1 ||
        { tail -20 "$out/build.log"; echo "building failed"; exit 1; }
fi
candid=$build/candid

echo "== $(date -u +%F) $(git -C "$root" describe --always --dirty 2>/dev/null) =="
nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,clocks.max.memory,memory.total --format=csv,noheader
"$build/bench/bench_gpu" | tee "$out/kernels.txt" || exit 1
copy=$(awk '/^device copy/ {print $3}' "$out/kernels.txt")
rate=$(awk '/^fp16 product/ {print $3; exit}' "$out/kernels.txt")

# field JSON NAME
field() { python3 -c 'import json, sys; print(json.loads(sys.argv[1])[sys.argv[2]])' "$1" "$2"; }
# share A B: A as a percentage of B
share() { awk -v a="$1" -v b="$2" 'BEGIN {printf "%.1f%%", b > 0 ? 100 * a / b : 0}'; }

echo
echo "== whole models: 7B shapes, random weights, prompt of 35 + 576 + 64 tokens =="
decode_f16=
for type in $types; do
    model=$models/llava-7b-$type-single.gguf
    [ -f "$model" ] || python3 "$root/bench/random_llava.py" "$models" --size 7b --type "$type" --single >/dev/null || exit 1
    result=$("$candid" bench --device cuda --model "$model" --prefill 675 --decode 128 --encode --json) || exit 1
    decode=$(field "$result" decode_tok_s) gb=$(field "$result" decode_gb_s) prefill=$(field "$result" prefill_tok_s)
    encode=$(field "$result" encode_ms)
    # 6.6e9 weights in the layers of 7B shapes, two operations each; the image encoder has 0.30e9 over 577 tokens
    tflops=$(awk -v t="$prefill" 'BEGIN {printf "%.0f", 2 * 6.48e9 * t * 1e-12}')
    vision=$(awk -v ms="$encode" 'BEGIN {printf "%.0f", ms > 0 ? 2 * 0.30e9 * 577 / ms * 1e-9 : 0}')
    printf '%-5s decode %7.1f tok/s, %6.0f GB/s = %s of the copy; prefill %8.0f tok/s, %4s TFLOP/s = %s of fp16 products; image %6.1f ms, %4s TFLOP/s = %s\n' \
        "$type" "$decode" "$gb" "$(share "$gb" "$copy")" "$prefill" "$tflops" "$(share "$tflops" "$rate")" "$encode" \
        "$vision" "$(share "$vision" "$rate")"
    [ "$type" = f16 ] && decode_f16=$decode
done

model=$models/llava-7b-f16-single.gguf
if [ -f "$model" ]; then
    echo
    echo "== methods and searches, ratios to plain decoding in turns =="
    "$candid" bench --device cuda --model "$model" --decode 64 --rounds 5 \
        --methods 'var.sink_dims=[0,1]+var.tau=3,vhr,cca,pai,vista'
    "$candid" bench --device cuda --model "$model" --prefill 675 --decode 64 --rounds 3 \
        --searches 'contrast,decode.beams=5,opera=true'
    echo
    echo "== transformers, sdpa, fp16 =="
    if peer=$(python3 "$root/bench/gpu_transformers.py"); then
        echo "$peer"
        theirs=$(field "$peer" decode_tok_s)
        awk -v a="$decode_f16" -v b="$theirs" 'BEGIN {printf "candid decodes %.2f times as fast\n", b > 0 ? a / b : 0}'
    else
        echo "not run"
    fi
fi
