#!/usr/bin/env bash
# The headers are strict C11 and C++17, and nothing in them is at another place than in the first release (pins.h).
. "$SOURCE_DIR/tests/cli/common.sh"
abi=$SOURCE_DIR/tests/abi headers=$SOURCE_DIR/include

[ "$(getconf LONG_BIT)" = 64 ] || { echo "pins.h is about 64-bit machines"; exit 77; }
strict="-pedantic -Wall -Wextra -Werror -fsyntax-only"
for header in candid plugin; do
    echo "#include <candid/$header.h>" >"$work/alone.c"
    run 0 "$CC" -std=c11 -Wstrict-prototypes $strict -I"$headers" "$work/alone.c"
    run 0 g++ -std=c++17 -x c++ $strict -I"$headers" "$work/alone.c"
done

# Whether the table fits the headers in $1, and they the table.
fits() {
    "$CC" -std=c11 $strict -I"$1" "$abi/pins.c" && g++ -std=c++17 -x c++ $strict -I"$1" "$abi/pins.c" &&
        for header in candid plugin; do awk -f "$abi/declared.awk" "$1/candid/$header.h"; done |
        grep -v ^FUNCTION | sort >"$work/declared" &&
        sed -nE 's/^(FIELD)\((\w+, \w+),.*/\1 \2/p; s/^(CONSTANT|LEAST)\((\w+),.*/CONSTANT \2/p' "$abi/pins.h" |
        grep -v ' CANDID_ABI_VERSION$\| CANDID_MAX_TAPS$' | sort >"$work/pinned" &&
        [ -s "$work/declared" ] && diff "$work/pinned" "$work/declared"
}
run 0 fits "$headers"

# The test can fail: a field moved, another's type changed, a constant's value changed, something new without a line.
changed() {
    rm -rf "$work/changed" && cp -r "$headers" "$work/changed"
    sed -i "$1" "$work/changed/candid/plugin.h"
    ! cmp -s "$headers/candid/plugin.h" "$work/changed/candid/plugin.h" || fail "nothing matches $1"
    run 1 fits "$work/changed"
}
changed 's/^    uint32_t abilities;.*/    void *more;\n&/'
changed 's/^    uint32_t abilities;/    uint64_t abilities;/'
changed 's/CANDID_ROLE_PLAIN = 2/CANDID_ROLE_PLAIN = 4/'
changed 's/^    void \*log_user_data;/&\n    int32_t more;/'
out_has "FIELD candid_host, more"

# Functions are declared as they were in the first release: a second declaration of another type does not compile.
{
    echo '#include <candid/plugin.h>'
    for header in candid plugin; do awk -v whole=1 -f "$abi/declared.awk" "$abi/v1/candid/$header.h"; done | grep ^CANDID_API
} >"$work/again.c"
[ "$(wc -l <"$work/again.c")" -gt 50 ] || fail "no declarations found in tests/abi/v1"
run 0 "$CC" -std=c11 -fsyntax-only -I"$headers" "$work/again.c"
