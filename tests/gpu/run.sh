#!/usr/bin/env bash
# Tests of the CUDA backend on a real GPU: builds, runs, prints one line per case and a closing count. Exits 0 when every
# case passed, 1 on a failure, 77 when this machine has no GPU.
#
#   tests/gpu/run.sh [--built DIR] [--scenes N] [--no-sanitizer]
#
# --built: a build directory made elsewhere (cmake --preset cuda), which is used as it is. --scenes: captions compared
# with the CPU's (default 200).
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=$root/build/cuda built= scenes=200 sanitizer=1
while [ $# -gt 0 ]; do
    case $1 in
        --built) [ $# -ge 2 ] || { echo "run.sh: --built needs a directory" >&2; exit 2; }
                 build=$(cd "$2" && pwd) || exit 2; built=1; shift 2 ;;
        --scenes) [ $# -ge 2 ] || { echo "run.sh: --scenes needs a number" >&2; exit 2; }
                  scenes=$2; shift 2 ;;
        --no-sanitizer) sanitizer=; shift ;;
        *) echo "Usage: tests/gpu/run.sh [--built DIR] [--scenes N] [--no-sanitizer]" >&2; exit 2 ;;
    esac
done

if ! command -v nvidia-smi >/dev/null || ! nvidia-smi -L 2>/dev/null | grep -q GPU; then
    echo "no GPU"
    exit 77
fi
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader

if [ -z "$built" ]; then
    cmake --preset cuda -S "$root" >/dev/null && cmake --build "$build" -j "$(nproc)" >"$build/gpu.log" 2>&1 ||
        { tail -20 "$build/gpu.log" 2>/dev/null; echo "building failed"; exit 1; }
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
candid=$build/candid passed=0 failed=0

pass() { printf 'ok      %s\n' "$*"; passed=$((passed + 1)); }
miss() { printf 'FAILED  %s\n' "$*"; failed=$((failed + 1)); }

# Every case of a cmocka program is a line; so is a program that ends in another way.
cmocka() {
    local name=$1 cases=0 line
    shift
    "$@" >"$work/out" 2>&1 </dev/null
    local code=$?
    while IFS= read -r line; do
        case $line in
            '[       OK ]'*) pass "$name: ${line#*] }"; cases=$((cases + 1)) ;;
        esac
    done <"$work/out"
    while IFS= read -r line; do
        miss "$name: ${line#*] }"
    done < <(grep -E '^\[  FAILED  \] [a-z_]+$' "$work/out" | sort -u)
    if [ "$code" != 0 ] || [ "$cases" = 0 ]; then
        miss "$name: exit code $code"
        grep -E 'ERROR|error|Error' "$work/out" | head -5
    fi
}

# ---- ops and whole models, the cases that also run emulated ----
for program in "$build"/tests/gpu/gpu_*; do
    [ -x "$program" ] && [ -f "$program" ] && cmocka "$(basename "$program")" "$program"
done

# ---- captions of the demo scenes, f32 on both sides ----
find "$root/models/demo/heldout/images" -name '*.png' | sort | head -n "$scenes" >"$work/scenes"
mapfile -t images <"$work/scenes"
for device in cpu cuda; do
    "$candid" caption --device $device --precision exact --jsonl "$work/$device.jsonl" "${images[@]}" >/dev/null 2>"$work/err" ||
        { miss "captions on $device"; head -3 "$work/err"; }
done
compared=$(python3 - "$work/cpu.jsonl" "$work/cuda.jsonl" <<'PYTHON'
import json, sys
cpu, cuda = ([json.loads(line) for line in open(path)] for path in sys.argv[1:])
same = sum(a["text"] == b["text"] and a["image"] == b["image"] for a, b in zip(cpu, cuda))
print(same, max(len(cpu), len(cuda)))
PYTHON
) || compared="0 0"
read -r same total <<<"$compared"
if [ "$total" = "${#images[@]}" ] && [ "$total" -gt 0 ] && [ "$same" = "$total" ]; then
    pass "greedy captions of $total demo scenes equal the CPU's"
else
    miss "greedy captions: $same of $total (of ${#images[@]} scenes) equal the CPU's"
fi

# ---- how far the fast path is from the exact one ----
if "$candid" verify --device cuda >"$work/out" 2>&1; then
    pass "candid verify --device cuda"
else
    miss "candid verify --device cuda"
    tail -3 "$work/out"
fi

# ---- compute-sanitizer ----
if [ -n "$sanitizer" ] && command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck; do
        for name in cuda_ops cuda_attention plan_ops; do
            if compute-sanitizer --tool $tool --error-exitcode 9 "$build/tests/gpu/gpu_$name" >"$work/out" 2>&1; then
                pass "$tool: $name"
            else
                miss "$tool: $name"
                grep -E 'ERROR|=========' "$work/out" | head -5
            fi
        done
    done
elif [ -n "$sanitizer" ]; then
    echo "not run: compute-sanitizer is not installed"
fi

echo "$((passed + failed)) cases, $failed failed"
[ "$failed" = 0 ]
