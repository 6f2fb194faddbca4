#!/usr/bin/env bash
# A host that was compiled against the headers of the first release works with this library.
. "$SOURCE_DIR/tests/cli/common.sh"
if [ "$SANITIZE" = ON ]; then
    flags="-fsanitize=address,undefined"
else
    flags=""
fi
v1=$SOURCE_DIR/tests/abi/v1
run 0 "$CC" -std=c11 -pedantic -Wall -Wextra -Werror $flags -I"$v1" "$v1/host.c" -o "$work/host" "$LIBCANDID" -lm \
    -Wl,-rpath,"$(dirname "$LIBCANDID")"
run 0 "$work/host" "$demo_model" "$(ls "$heldout"/*.png | head -1)"
out_has "a host of ABI version 1 works with version"
