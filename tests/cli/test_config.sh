#!/usr/bin/env bash
# candid config and candid methods, with whatever methods this build has.
. "$SOURCE_DIR/tests/cli/common.sh"

for command in config methods; do
    run 0 "$CANDID" $command --help
    [ -s "$work/out" ] || fail "candid $command --help prints nothing"
done
run 2 "$CANDID" config
run 2 "$CANDID" config --nonsense; err_has "--nonsense"
run 2 "$CANDID" config --set; err_has "needs a value"
run 2 "$CANDID" config --schema extra; err_has "--schema"
run 2 "$CANDID" config a.json b.json; err_has "b.json"

# What is valid is printed resolved, and is itself a configuration.
echo '{"comment": "nothing"}' >"$work/empty.json"
run 0 "$CANDID" config "$work/empty.json"
[ "$(tr -d ' \t\n' <"$work/out")" = "{}" ] || fail "nothing is active"

# What is not is refused with file, line and key.
printf '{\n  "comment": "x",\n  "no_such_method_at_all": true\n}\n' >"$work/unknown.json"
run 2 "$CANDID" config "$work/unknown.json"; err_has "$work/unknown.json:3: key no_such_method_at_all:"
printf '{\n  "comment": "x"\n' >"$work/torn.json"
run 2 "$CANDID" config "$work/torn.json"; err_has "$work/torn.json:2: expected valid JSON"
printf '{\n\n"comment": 1}' >"$work/type.json"
run 2 "$CANDID" config "$work/type.json"; err_has "$work/type.json:3: key comment: expected a string, found number 1"
: >"$work/zero.json"
run 2 "$CANDID" config "$work/zero.json"; err_has "$work/zero.json"
run 2 "$CANDID" config "$work/none.json"; err_has "$work/none.json"
run 2 "$CANDID" config "$work/empty.json" --set nonsense; err_has 'assignment "nonsense"'
run 2 "$CANDID" config --set no_such_method_at_all.x=1; err_has 'assignment "no_such_method_at_all.x=1"'
run 2 "$CANDID" methods no_such_method_at_all; err_has "no_such_method_at_all"

# Every method: listed, described, documented, in the schema, and switched on with each preset.
run 0 "$CANDID" config --schema
cp "$work/out" "$work/schema.json"
if command -v python3 >/dev/null; then python3 -m json.tool "$work/schema.json" >/dev/null || fail "the schema is not JSON"; fi
run 0 "$CANDID" config --markdown
cp "$work/out" "$work/config.md"
run 0 "$CANDID" methods
for name in $(grep -oE '^[a-z0-9_]+' "$work/out"); do
    grep -q "^## \`$name\`: " "$work/config.md" || fail "$name is not documented"
    grep -q "^		\"$name\":" "$work/schema.json" || fail "$name is not in the schema"
    run 0 "$CANDID" methods "$name"; out_has "edits"
    run 2 "$CANDID" methods "$name$name"
    for preset in recommended paper code; do
        run 0 "$CANDID" config --set "$name.preset=$preset"
        out_has "\"$name\":"
        cp "$work/out" "$work/resolved.json"
        run 0 "$CANDID" config "$work/resolved.json"
        cmp -s "$work/out" "$work/resolved.json" || fail "$name: what is resolved changes when read again"
    done
    printf '{"%s": {"comment": "c",\n"no_such_option_at_all": 1}}' "$name" >"$work/option.json"
    run 2 "$CANDID" config "$work/option.json"; err_has "$work/option.json:2: key $name.no_such_option_at_all:"
    run 0 "$CANDID" config "$work/empty.json" --set "$name=true" --set "$name=false"
    [ "$(tr -d ' \t\n' <"$work/out")" = "{}" ] || fail "$name is still on"
done
cmp -s "$work/config.md" "$SOURCE_DIR/docs/config.md" ||
    fail "docs/config.md is not what the methods say; run: candid config --markdown >docs/config.md"

# Every configuration that comes with candid is valid.
for file in "$SOURCE_DIR"/configs/*.json; do
    [ "$(basename "$file")" = models.json ] || [ ! -e "$file" ] || run 0 "$CANDID" config "$file"
done
exit 0
