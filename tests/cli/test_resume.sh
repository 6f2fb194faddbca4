#!/usr/bin/env bash
# JSON lines survive kill -9, --resume goes on where they end; Ctrl-C ends cleanly.
. "$SOURCE_DIR/tests/cli/common.sh"
mkdir "$work/images"
for f in $(ls "$heldout"/*.png | head -24); do cp "$f" "$work/images/"; done
image_pair=($(ls "$work/images/"*.png | head -2))
total=$(ls "$work/images" | wc -l)

run 0 "$CANDID" caption --jsonl "$work/whole.jsonl" "$work/images"
[ "$(wc -l <"$work/whole.jsonl")" = "$total" ] || fail "one line per image"

# Kill it when some lines are there, several times over.
kills=0
for delay in 0.15 0.3 0.45; do
    "$CANDID" caption --resume --jsonl "$work/killed.jsonl" "$work/images" >/dev/null 2>&1 &
    pid=$!
    sleep "$delay"
    kill -9 $pid 2>/dev/null && kills=$((kills + 1))
    wait $pid 2>/dev/null
done
[ -f "$work/killed.jsonl" ] || fail "no output at all"
[ $kills -gt 0 ] || fail "the program was never killed"
printf '{"image":"torn' >>"$work/killed.jsonl" # a write cut short
before=$(grep -c '"finish"' "$work/killed.jsonl")
run 0 "$CANDID" caption --resume --jsonl "$work/killed.jsonl" "$work/images"
[ "$before" -le "$total" ] || fail "lines were written twice"
[ "$(wc -l <"$work/killed.jsonl")" = "$total" ] || fail "resumed file has $(wc -l <"$work/killed.jsonl") lines, expected $total"

# Same images, same answers as the run that was never killed (times differ).
answers() { sed -E 's/"(encode|prefill|decode)_ms":[0-9.e+-]+,//g' "$1" | sort; }
[ "$(answers "$work/whole.jsonl")" = "$(answers "$work/killed.jsonl")" ] || fail "resumed answers differ"

# Nothing left to do: nothing is added. Another prompt is other work.
run 0 "$CANDID" caption --resume --jsonl "$work/killed.jsonl" "$work/images"
[ "$(wc -l <"$work/killed.jsonl")" = "$total" ] || fail "a finished run was repeated"
run 0 "$CANDID" ask -q "Is there a dog in the image?" --resume --jsonl "$work/killed.jsonl" "$work/images"
[ "$(wc -l <"$work/killed.jsonl")" = $((2 * total)) ] || fail "another question was skipped"
run 0 "$CANDID" ask -q "Is there a dog in the image?" --seed 1 --resume --jsonl "$work/killed.jsonl" "${image_pair[@]}"
[ "$(wc -l <"$work/killed.jsonl")" = $((2 * total + 2)) ] || fail "other settings were taken for the same work"

# One request for several images is resumed like any other.
for _ in 1 2; do run 0 "$CANDID" caption --together --max-new-tokens 2 --resume --jsonl "$work/together.jsonl" "${image_pair[@]}"; done
[ "$(wc -l <"$work/together.jsonl")" = 1 ] || fail "--together was repeated"

# Ctrl-C
for i in 1 2 3 4 5 6 7 8; do for f in "$work/images/"*; do echo "$f"; done; done >"$work/list"
set -m
"$CANDID" caption --jsonl "$work/interrupted.jsonl" $(cat "$work/list") >/dev/null 2>"$work/err" &
pid=$!
for _ in $(seq 100); do [ -s "$work/interrupted.jsonl" ] && break; sleep 0.02; done
kill -INT $pid
wait $pid
code=$?
[ $code = 130 ] || fail "expected exit code 130 after Ctrl-C, found $code"
err_has "interrupted"
[ "$(tail -c 1 "$work/interrupted.jsonl" | od -An -c | tr -d ' ')" = '\n' ] || fail "the last line is torn"
