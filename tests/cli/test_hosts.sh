#!/usr/bin/env bash
# candid hosts: the table of docs/hosts.md is what the query says; one host; a configuration; errors.
. "$SOURCE_DIR/tests/cli/common.sh"
run 0 "$CANDID" hosts --markdown
sed -n '/^| method/,/^$/p' "$SOURCE_DIR/docs/hosts.md" | sed '/^$/d' >"$work/documented"
diff "$work/documented" "$work/out" >&2 || fail "docs/hosts.md does not show what candid hosts --markdown prints"
run 0 "$CANDID" hosts
out_has "transformers"
run 0 "$CANDID" hosts llama.cpp
grep -A1 '^dola ' "$work/out" | grep -q 'needs early_logits, out of reach in llama.cpp' || fail "dola's reason is missing"
printf '{"pai": {"gamma": 1}}' >"$work/boost.json"
run 0 "$CANDID" hosts --config "$work/boost.json" transformers
[ "$(wc -l <"$work/out")" = 1 ] || fail "expected the one method that is on"
grep -q '^pai .*needs attention.scores$' "$work/out" || fail "without a contrast pai needs no branches"
printf '{"causalmm": {"vision": "off", "language": "reverse"}}' >"$work/language.json"
run 0 "$CANDID" hosts --config "$work/language.json" "logits only"
grep -q '^causalmm .*no .*needs attention.probs, branches$' "$work/out" || fail "the branch's edits are a need"
run 2 "$CANDID" hosts vllm
err_has 'no host "vllm"'
printf '{"pai": 3}' >"$work/bad.json"
run 2 "$CANDID" hosts --config "$work/bad.json"
err_has "bad.json"
