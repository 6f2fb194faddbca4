#!/usr/bin/env bash
# candid with bad input: a clear sentence, the documented exit code, nothing crashes.
. "$SOURCE_DIR/tests/cli/common.sh"
image=$(ls "$SOURCE_DIR"/examples/*.png | head -1)

# Command line
run 2 "$CANDID"
run 2 "$CANDID" paint x.png; err_has "paint"
run 2 "$CANDID" caption; err_has "at least one image"
run 2 "$CANDID" ask "$image"; err_has "-q QUESTION"
run 2 "$CANDID" caption --temperature hot "$image"; err_has "hot"
run 2 "$CANDID" caption --max-new-tokens 0 "$image"; err_has "--max-new-tokens"
run 2 "$CANDID" caption --precision perfect "$image"; err_has "perfect"
run 3 "$CANDID" caption --device toaster "$image"; err_has 'expected auto, cpu, cuda or cuda:N, found "toaster"'
run 3 "$CANDID" caption --device cuda:x "$image"; err_has "cuda:x"
run 3 "$CANDID" caption --device cuda "$image"; err_has "device cuda: " # no GPU in these tests, or no such backend
run 0 "$CANDID" caption --device auto --max-new-tokens 2 "$image"
run 2 "$CANDID" caption --nonsense "$image"
run 2 "$CANDID" caption --resume "$image"; err_has "--resume needs --jsonl"
run 2 "$CANDID" caption --mmproj x.gguf "$image"; err_has "--model"
run 2 "$CANDID" caption --ctx 100000000 "$image"

# Models
run 3 "$CANDID" caption --model "$work/none.gguf" "$image"; err_has "$work/none.gguf"
echo "this is a text file, not a model" >"$work/text.gguf"
run 3 "$CANDID" caption --model "$work/text.gguf" "$image"; err_has "$work/text.gguf"
: >"$work/empty.gguf"
run 3 "$CANDID" caption --model "$work/empty.gguf" "$image"; err_has "$work/empty.gguf"
run 3 "$CANDID" caption --model "$work" "$image"; err_has "$work"
size=$(stat -c %s "$demo_model")
for part in 3 20 200 5000 $((size / 2)) $((size - 1)); do
    head -c "$part" "$demo_model" >"$work/cut.gguf"
    run 3 "$CANDID" caption --model "$work/cut.gguf" "$image"
    err_has "$work/cut.gguf"
done
run 3 "$CANDID" caption --model "$demo_model" --mmproj "$work/text.gguf" "$image"; err_has "$work/text.gguf"
run 3 "$CANDID" model "$work/text.gguf"

# Images: the good ones are still done, the exit code says that one was not.
run 1 "$CANDID" caption "$work/none.png"; err_has "$work/none.png"
: >"$work/zero.png"
run 1 "$CANDID" caption "$work/zero.png"; err_has "$work/zero.png"
head -c 300 "$image" >"$work/torn.png"
run 1 "$CANDID" caption --max-new-tokens 4 "$work/torn.png" "$image"
err_has "$work/torn.png"
out_has "$image: "
run 2 "$CANDID" caption "$SOURCE_DIR/cmake"; err_has "images"

# Requests that do not fit
run 1 "$CANDID" caption --max-new-tokens 100000 "$image"; err_has "context"
run 1 "$CANDID" caption --ctx 40 "$image"; err_has "context"
run 1 "$CANDID" caption --prompt "$(printf 'word %.0s' {1..3000})" "$image"; err_has "context"
run 1 "$CANDID" caption --template nonsense "$image"; err_has "nonsense"
run 1 "$CANDID" ask -q "What about <image> and <image>?" "$image"; err_has "image"

# Output
run 4 "$CANDID" caption --jsonl "$work/no/such/dir.jsonl" "$image"; err_has "$work/no/such/dir.jsonl"
run 4 "$CANDID" caption --json "$work/no/such/dir.json" "$image"
echo '{"other": 1}' >"$work/other.jsonl"
run 4 "$CANDID" caption --jsonl "$work/other.jsonl" "$image"; err_has "--resume"
run 4 "$CANDID" caption --resume --jsonl "$work/other.jsonl" "$image"; err_has "line 1"
grep -qx '{"other": 1}' "$work/other.jsonl" || fail "a foreign file was changed"
echo '["earlier results"]' >"$work/kept.json"
run 3 "$CANDID" caption --model "$work/none.gguf" --json "$work/kept.json" "$image"
run 1 "$CANDID" caption --json "$work/kept.json" "$work/none.png"
grep -q "earlier results" "$work/kept.json" || fail "a failed run replaced earlier results"
# what is wrong with the request is said once, not for every image
run 1 "$CANDID" caption --set decode.strategy=greedy --set decode.beams=3 "$image" "$image" "$image"
[ "$(grep -c "decode.beams is given" "$work/err")" = 1 ] || fail "a refused request is tried on every image"
if [ -e /dev/full ]; then
    run 4 "$CANDID" caption --jsonl /dev/full "$image"
    "$CANDID" caption --max-new-tokens 2 "$image" >/dev/full 2>"$work/err"; [ $? = 4 ] || fail "a full standard output goes unnoticed"
fi
exit 0
