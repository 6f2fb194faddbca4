#!/usr/bin/env bash
# candid inspect from end to end on the demo model: the files, what is in them, and what goes wrong.
. "$SOURCE_DIR/tests/cli/common.sh"
image=$SOURCE_DIR/examples/park_28.png
dir=$work/out.dir

is_png() { [ "$(head -c 8 "$1" | od -An -tx1 | tr -d ' \n')" = 89504e470d0a1a0a ] || fail "$1 is not a PNG file"; }
has_files() {
    local name
    for name in "$@"; do [ -s "$dir/$name" ] || fail "$name is missing"; done
}

# Without methods
mkdir "$dir"
echo mine >"$dir/notes.txt"
run 0 "$CANDID" inspect "$image" --out "$dir" --words 2
out_has "park"
err_has "2 words inspected"
has_files index.html inspect.json image.png 01-park-before-{mean,mean-max,early,middle,late,layers}.png \
    02-cat-before-mean.png heads-attention-before.png heads-divergence.png sinks.png
ls "$dir" | grep -qE "after|^03-" && fail "more pictures than asked for"
[ "$(cat "$dir/notes.txt")" = mine ] || fail "a foreign file was changed"
for file in "$dir"/*.png; do is_png "$file"; done

# The page needs nothing but itself.
grep -qiE 'https?://|src="[^d]|url\([^d]|<link|@import' "$dir/index.html" && fail "the page refers to something outside"
grep -q 'data:image/png;base64,' "$dir/index.html" || fail "the page has no pictures"
grep -q 'None was switched on' "$dir/index.html" || fail "the page does not say that there was no method"
grep -q 'known massive dimensions exceed 4.33' "$dir/index.html" || fail "the page does not say what its sinks are"
run 0 "$CANDID" inspect --model "$SOURCE_DIR/tests/golden/hf/llava15_mha" "$image" --words 1 --max-new-tokens 5 --out "$work/other"
grep -q 'Not marked: ' "$work/other/index.html" || fail "the page does not say why there are no sinks"
[ ! -e "$work/other/sinks.png" ] || fail "a picture of sinks nobody knows"

# With methods, other words, other geometry; the same directory again. CCA has its own order of image tokens.
run 0 "$CANDID" inspect --preprocess crop --set vhr=true --set cca=true "--out=$dir" --words=Dog,cat,unicorn \
    -q 'What is <here> & "there"?' "$image" --max-new-tokens 60
err_has 'no word "unicorn"'
has_files heads-attention-after.png
grep -q '&lt;here&gt; &amp; &quot;there&quot;' "$dir/index.html" || fail "the question is not escaped"
grep -q 'Concentric causal attention' "$dir/index.html" || fail "the page does not tell what CCA did"

if command -v python3 >/dev/null; then
    # Every number of the file is there; probabilities are; the first word is the prompt's last row.
    run 0 "$CANDID" inspect "$image" --out "$dir" --words all --set vhr.alpha=1.0001 \
        -q "$(printf 'Please look at it. %.0s' {1..25})" --max-new-tokens 12 --precision exact
    cat >"$work/check.py" <<'P'
import json, sys
d = json.load(open(sys.argv[1] + "/inspect.json"))
heads, g = d["heads"], d["geometry"]
layers, n_heads, cells = len(heads["divergence"]), len(heads["divergence"][0]), g["grid"] ** 2
assert g["prompt_tokens"] > 128, g
assert d["words"][0]["token"] == 0, d["words"][0]["token"]
answer = d["answer"].split()
assert len(answer) == len(d["words"]), (answer, [w["word"] for w in d["words"]])
for w, text in zip(d["words"], answer):
    assert w["word"] == text.strip(".,!?;:"), (w["word"], text)
    for run in ("before", "after"):
        r = w[run]
        assert len(r["layers"]) == layers and all(len(l) == cells for l in r["layers"])
        for l in range(layers):
            mass, total = sum(r["heads"][l]) / n_heads, sum(r["layers"][l])
            assert 0 < mass <= 1 and abs(mass - total) < 1e-3, (mass, total)
    # VHR that scales by next to nothing: the same numbers, though the prompt ran in one pass beside a companion
    for a, b in zip(w["before"]["layers"], w["after"]["layers"]):
        assert max(abs(x - y) for x, y in zip(a, b)) < 2e-3
assert all(x >= 0 for row in heads["divergence"] for x in row) and any(x > 0 for row in heads["divergence"] for x in row)
P
    python3 "$work/check.py" "$dir" || fail "inspect.json is not what it should be"
    # Rings are mapped back: CCA's attention for "cat" is where it is without CCA.
    run 0 "$CANDID" inspect "$image" --out "$dir" --words cat --set cca=true
    python3 - "$dir" <<'P' || fail "the cells of CCA are not where they should be"
import json, sys
w = json.load(open(sys.argv[1] + "/inspect.json"))["words"][0]
for run in ("before", "after"):
    sums = [sum(c) for c in zip(*w[run]["layers"])]
    best = max(range(len(sums)), key=lambda i: sums[i])
    assert best % 8 <= 2 and 3 <= best // 8 <= 5, (run, best)  # the cat stands on the left
P
fi

# Sinks of VAR
run 0 "$CANDID" inspect "$image" --out "$dir" --words 1 --set 'var.sink_dims=[3,7,20,41]' --set var.tau=2
has_files sinks.png
is_png "$dir/sinks.png"
grep -q 'Tokens that VAR took for sinks (tau 2)' "$dir/index.html" || fail "the page has no sinks"

# Bad command lines
run 2 "$CANDID" inspect; err_has "one image"
run 2 "$CANDID" inspect "$image"; err_has "--out DIR"
run 2 "$CANDID" inspect "$image" --out; err_has "--out needs a value"
run 2 "$CANDID" inspect "$image" "$image" --out "$dir"; err_has "found 2"
run 2 "$CANDID" inspect "$image" --out "$dir" --words 0; err_has "--words"
run 2 "$CANDID" inspect "$image" --out "$dir" --words ''; err_has "--words"
run 2 "$CANDID" inspect "$image" --out "$dir" --outer x
run 2 "$CANDID" inspect "$image" --out "$dir" --jsonl x; err_has "--jsonl"
run 2 "$CANDID" inspect "$image" --out "$dir" --set nonsense=1; err_has "nonsense"
run 2 "$CANDID" inspect "$image" --out "$dir" --ctx 100000000
run 0 "$CANDID" inspect --help; out_has "--words"

# Bad input and output
run 1 "$CANDID" inspect "$work/none.png" --out "$dir"; err_has "$work/none.png"
run 1 "$CANDID" inspect "$image" --out "$dir" --ctx 40; err_has "context"
run 3 "$CANDID" inspect "$image" --out "$dir" --model "$work/none.gguf"; err_has "$work/none.gguf"
run 4 "$CANDID" inspect "$image" --out "$work/no/such/dir"; err_has "$work/no/such/dir"
run 4 "$CANDID" inspect "$image" --out "$dir/notes.txt"; err_has "expected a directory"
mkdir "$work/site"
echo home >"$work/site/index.html"
run 4 "$CANDID" inspect "$image" --out "$work/site"; err_has "not of candid inspect"
[ "$(cat "$work/site/index.html")" = home ] || fail "a foreign page was changed"
mkdir -p "$dir/image.png.d" && rm "$dir/image.png" && mkdir "$dir/image.png"
run 4 "$CANDID" inspect "$image" --out "$dir" --words 1; err_has "image.png"
exit 0
