#!/usr/bin/env bash
# candid caption and ask: what a user sees when things go well.
. "$SOURCE_DIR/tests/cli/common.sh"
images=("$SOURCE_DIR"/examples/*.png)

run 0 "$CANDID" --version
grep -qE '^candid [0-9]+\.[0-9]+\.[0-9]+$' "$work/out" || fail "version line"
for command in "" caption ask model bench; do
    run 0 "$CANDID" $command --help
    [ -s "$work/out" ] || fail "candid $command --help prints nothing"
done

run 0 "$CANDID" caption "${images[0]}"
err_has "embedded demo model"
grep -qE 'image encode [0-9.]+ ms \| prefill [0-9]+ tokens, [0-9.]+ tok/s \| decode [0-9]+ tokens, [0-9.]+ tok/s, [0-9.]+ GB/s \| fingerprint [0-9a-f]{8}' \
    "$work/err" || fail "speed line"
[ "$(wc -l <"$work/out")" = 1 ] || fail "one image gives one line"
caption=$(cat "$work/out")
[ ${#caption} -gt 20 ] || fail "caption is too short"

# The same model from its file, exact and fast, gives a caption and needs no network or configuration.
run 0 "$CANDID" caption --model "$demo_model" "${images[0]}"
[ "$(cat "$work/out")" = "$caption" ] || fail "embedded and file model differ"
grep -q "embedded demo model" "$work/err" && fail "the demo notice is for the demo model only"
run 0 "$CANDID" caption --precision exact -v "${images[0]}"
err_has "cpu exact"
run 0 "$CANDID" caption -v "${images[0]}"
err_has "cpu fast"

# Greedy decoding is deterministic: same fingerprint twice.
run 0 "$CANDID" caption "${images[1]}"; first=$(grep -o 'fingerprint.*' "$work/err")
run 0 "$CANDID" caption "${images[1]}"; [ "$first" = "$(grep -o 'fingerprint.*' "$work/err")" ] || fail "fingerprint changed"

# Sampling follows its seed.
sample() { run 0 "$CANDID" caption --temperature 2 --top-k 50 --top-p 0.95 --repetition-penalty 1.1 --seed "$1" "${images[0]}"; cat "$work/out"; }
[ "$(sample 1)" = "$(sample 1)" ] || fail "same seed, different text"
[ "$(sample 1)" != "$(sample 2)" ] || fail "different seeds, same text"

run 0 "$CANDID" caption --max-new-tokens 3 --json - "${images[0]}"
out_has '"finish":	"length"'
out_has '"new_tokens":	3'
run 0 "$CANDID" caption --stop " " --json - "${images[0]}"
out_has '"finish":	"stop"'

run 0 "$CANDID" ask -q "Is there a person in the image?" "${images[0]}"
grep -qE '^(Yes|No)' "$work/out" || fail "a yes/no question gets a yes/no answer"

# Templates and preprocessing are accepted and change the work.
run 0 "$CANDID" caption --template plain --max-new-tokens 8 "${images[0]}"
run 0 "$CANDID" caption --template $'USER: <image>\n{prompt} ASSISTANT:' "${images[0]}"
[ "$(cat "$work/out")" = "$caption" ] || fail "the demo template written out gives another caption"
run 0 "$CANDID" caption --preprocess crop --max-new-tokens 8 "${images[0]}"
run 0 "$CANDID" ask --together -q "What is this?" --max-new-tokens 4 "${images[0]}" "${images[1]}"
[ "$(wc -l <"$work/out")" = 1 ] || fail "--together gives one answer"

# A directory: one line per image, sorted, named.
mkdir "$work/dir"
cp "${images[1]}" "$work/dir/b.png"; cp "${images[0]}" "$work/dir/a.PNG"; echo text >"$work/dir/notes.txt"
run 0 "$CANDID" caption "$work/dir"
[ "$(wc -l <"$work/out")" = 2 ] || fail "two images give two lines"
head -1 "$work/out" | grep -q "^$work/dir/a.PNG: " || fail "lines carry the image's name, sorted"

run 0 "$CANDID" model
out_has "general.architecture"
run 0 "$CANDID" model -v "$demo_model"
out_has "token_embd.weight"
run 0 "$CANDID" bench --prefill 16 --decode 2 --rows 2 --encode --json
out_has '"decode_tok_s"'
