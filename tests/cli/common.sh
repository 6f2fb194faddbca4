# Sourced by the end-to-end tests: a scratch directory and a few checks that end the test.
set -uo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
demo_model=$SOURCE_DIR/models/demo/candid-demo.gguf
heldout=$SOURCE_DIR/models/demo/heldout/images

fail() {
    printf 'FAILED: %s\n' "$*" >&2
    [ -f "$work/out" ] && { echo '--- stdout'; head -c 2000 "$work/out"; echo '--- stderr'; head -c 2000 "$work/err"; } >&2
    exit 1
}

# run CODE COMMAND...: runs it, output in $work/out and $work/err, fails unless it exits with CODE.
run() {
    local expected=$1 code
    shift
    "$@" >"$work/out" 2>"$work/err" </dev/null
    code=$?
    [ "$code" = "$expected" ] || fail "expected exit code $expected, found $code: $*"
}

out_has() { grep -qF -- "$1" "$work/out" || fail "expected \"$1\" on stdout"; }
err_has() { grep -qF -- "$1" "$work/err" || fail "expected \"$1\" on stderr"; }
