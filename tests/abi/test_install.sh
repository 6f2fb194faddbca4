#!/usr/bin/env bash
# The installed package serves a host: find_package, pkg-config, C and C++.
. "$SOURCE_DIR/tests/cli/common.sh"
if [ "$SANITIZE" = ON ]; then
    flags="-fsanitize=address,undefined"
else
    flags=""
fi
image=$(ls "$SOURCE_DIR"/examples/*.png | head -1)
run 0 cmake --install "$BUILD_DIR" --prefix "$work/prefix"
[ -x "$work/prefix/bin/candid" ] || fail "the program is not installed"
libdir=$(dirname "$(find "$work/prefix" -name libcandid.so)")
export LD_LIBRARY_PATH=$libdir PKG_CONFIG_PATH=$libdir/pkgconfig

# find_package
mkdir "$work/host"
cp "$SOURCE_DIR/examples/embed.c" "$work/host/"
cat >"$work/host/CMakeLists.txt" <<'CMAKE'
cmake_minimum_required(VERSION 3.25)
project(host LANGUAGES C)
find_package(candid 0.1 REQUIRED)
add_executable(embed embed.c)
target_link_libraries(embed PRIVATE candid::candid)
CMAKE
run 0 cmake -S "$work/host" -B "$work/host/build" "-DCMAKE_PREFIX_PATH=$work/prefix" "-DCMAKE_C_FLAGS=$flags"
run 0 cmake --build "$work/host/build"
model=$work/prefix/share/candid/models/demo/candid-demo.gguf
run 0 "$work/host/build/embed" "$model" "$image"
out_has "tokens)"
embedded=$(head -1 "$work/out")
run 0 "$work/prefix/bin/candid" caption "$image"
[ "$(cat "$work/out")" = "$embedded" ] || fail "library and program give different captions"
run 1 "$work/host/build/embed" "$model" "$work/none.png"
err_has "none.png"

# pkg-config
run 0 "$CC" $flags "$SOURCE_DIR/examples/embed.c" -o "$work/embed" $(pkg-config --cflags --libs candid)
run 0 "$work/embed" "$model" "$image" "Is there a car in the image?"

# A host that loads the library while it runs. Without a method it computes what it computes without candid.
run 0 "$CC" -std=c11 -pedantic -Wall -Wextra -Werror $flags "$SOURCE_DIR/examples/dlopen_host.c" -o "$work/dlopen_host" \
    $(pkg-config --cflags candid) -lm -ldl
run 0 "$work/dlopen_host"
cp "$work/out" "$work/without"
run 0 "$work/dlopen_host" "$libdir/libcandid.so"
part() { awk -v wanted="$1" '!/^ / { on = index($0, wanted) } on && /^  token/' "$2"; }
part "without candid" "$work/without" >"$work/tokens"
[ "$(wc -l <"$work/tokens")" = 6 ] || fail "expected six tokens without candid"
part "without candid" "$work/out" | cmp - "$work/tokens" || fail "numbers without candid change when it is there"
part "with {}" "$work/out" | cmp - "$work/tokens" || fail "a plugin without methods changes numbers"
for method in var vhr; do
    part "with {\"$method\"" "$work/out" >"$work/edited"
    [ "$(wc -l <"$work/edited")" = 6 ] || fail "expected six tokens with $method"
    ! cmp -s "$work/edited" "$work/tokens" || fail "$method changes nothing"
    out_has "{\"$method\":{\"active\":true"
done
run 1 "$work/dlopen_host" "$work/none.so"
err_has "none.so"

# The headers as strict C11 and as C++
printf '#include <candid/plugin.h>\nint main(void) { return candid_version()[0] == 0 || candid_abi_version() == 0; }\n' >"$work/use.c"
cp "$work/use.c" "$work/use.cpp"
run 0 "$CC" -std=c11 -pedantic -Wall -Wextra -Werror $flags "$work/use.c" -o "$work/use_c" $(pkg-config --cflags --libs candid)
run 0 "$work/use_c"
run 0 g++ -std=c++11 -pedantic -Wall -Wextra -Werror $flags "$work/use.cpp" -o "$work/use_cpp" $(pkg-config --cflags --libs candid)
run 0 "$work/use_cpp"
