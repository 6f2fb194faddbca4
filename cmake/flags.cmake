# Compiler flags of everything we build. No -ffast-math anywhere: NaN and infinities must survive, and sums keep their
# order; contraction to fused multiply-add is allowed only where a kernel file asks for it by intrinsics.
add_library(candid_flags INTERFACE)
target_compile_options(candid_flags INTERFACE -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes
                                              -Wno-unused-parameter -ffp-contract=off -fno-math-errno)
target_compile_definitions(candid_flags INTERFACE _GNU_SOURCE)
target_include_directories(candid_flags INTERFACE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src)
if(CANDID_SANITIZE)
  # -O1: the unrolled kernels take minutes to compile with checks at -O2.
  target_compile_options(candid_flags INTERFACE -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all
                                                -fno-omit-frame-pointer)
  target_link_options(candid_flags INTERFACE -fsanitize=address,undefined)
endif()
