#!/usr/bin/env bash
# The demo model as a Hugging Face directory: greedy captions of the held-out scenes are those of transformers
# (tests/golden/make_demo_transformers.py), with both preprocessings; how many the fast path changes is printed.
. "$SOURCE_DIR/tests/cli/common.sh"
model=$SOURCE_DIR/models/demo-hf
limit=200
[ "$SANITIZE" = ON ] && limit=3 # the sanitizers make the exact path some fifty times slower
images=($(ls "$heldout"/*.png | head -$limit))

# expected MODE: "name<TAB>caption" lines of transformers; found FILE: the same of a JSONL file
expected() { awk -v mode="\"$1\"" 'index($0, mode ": {") {inside = 1; next} inside && /^ }/ {exit} inside' \
    "$SOURCE_DIR/tests/golden/demo_transformers.json" | sed -E 's/^ *"([^"]*)": "(.*)",?$/\1\t\2/' | head -$limit; }
found() { sed -E 's/.*"image":"([^"]*\/)?([^"\/]*)".*"text":"([^"]*)".*/\2\t\3/' "$1"; }

for mode in crop pad; do
    run 0 "$CANDID" caption --model "$model" --precision exact --preprocess $mode --jsonl "$work/$mode.jsonl" "${images[@]}"
    expected $mode >"$work/expected"
    [ "$(wc -l <"$work/expected")" = $limit ] || fail "expected $limit captions, found $(wc -l <"$work/expected")"
    found "$work/$mode.jsonl" >"$work/found"
    different=$(diff "$work/expected" "$work/found" | grep -c '^>')
    echo "exact path, $mode: $different of $limit captions differ from transformers"
    [ "$different" = 0 ] || { diff "$work/expected" "$work/found" | head -4; fail "captions differ"; }
done
run 0 "$CANDID" caption --model "$model" --jsonl "$work/fast.jsonl" "${images[@]}"
found "$work/fast.jsonl" >"$work/found"
different=$(diff <(expected crop) "$work/found" | grep -c '^>')
echo "fast path: $different of $limit captions differ from transformers"
[ "$different" -le $((limit / 20)) ] || fail "the fast path changes too many captions"
