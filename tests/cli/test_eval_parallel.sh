#!/usr/bin/env bash
# The line of docs/evaluate.md that runs shards side by side on one machine gives what one run gives.
. "$SOURCE_DIR/tests/cli/common.sh"
demo=$SOURCE_DIR/models/demo/heldout
[ "${SANITIZE:-}" = ON ] && { echo "skipped under the sanitizers: the program is tested there by test_eval.sh"; exit 77; }
cd "$work" || exit 1
export CANDID
options=(--images "$demo/images" --questions "$demo/questions_random.jsonl" --questions "$demo/questions_popular.jsonl"
    --limit 12 --threads 1 --config "$SOURCE_DIR/configs/pai.json")
value() { grep -o "\"$2\":[^,}]*" "$1" | head -1; }

run 0 "$CANDID" eval pope "${options[@]}" --out whole
if parallel --version 2>/dev/null | grep -q GNU; then
    echo "GNU parallel"
    parallel -j 2 "$CANDID" eval pope "${options[@]}" --out parts --shard {}/3 --resume ::: 1 2 3 >out 2>err || fail "parallel"
else
    echo "xargs -P: GNU parallel is not installed"
    seq 3 | xargs -P 2 -I{} "$CANDID" eval pope "${options[@]}" --out parts --shard {}/3 --resume >out 2>err || fail "xargs"
fi
[ "$(ls parts/*.shard-*-of-3.json | wc -l)" = 6 ] || fail "expected three parts of two runs: $(ls parts)"
run 2 "$CANDID" report parts
err_has "candid eval merge parts joins them"
run 0 "$CANDID" eval merge parts
for name in greedy pai; do
    diff <(sed 's/.*"index":\([0-9]*\).*"answer":"\([^"]*\)".*"fingerprint":"\([^"]*\)".*/\1 \2 \3/' "whole/$name.jsonl" | sort -n) \
        <(sed 's/.*"index":\([0-9]*\).*"answer":"\([^"]*\)".*"fingerprint":"\([^"]*\)".*/\1 \2 \3/' "parts/$name.jsonl" | sort -n) \
        >differences || fail "$name: other answers: $(head -3 differences)"
    [ "$(value "whole/$name.json" fingerprint)" = "$(value "parts/$name.json" fingerprint)" ] || fail "$name: other logits"
    diff <(sed -n '/"scores":/,$p' "whole/$name.json") <(sed -n '/"scores":/,$p' "parts/$name.json") >/dev/null ||
        fail "$name: other scores"
done
# Merged runs stand in the report once, their parts do not.
run 0 "$CANDID" report parts --markdown table.md
[ "$(grep -c '^| pai |' table.md)" -ge 1 ] && ! grep -q 'shard' table.md || fail "the report: $(cat table.md)"
