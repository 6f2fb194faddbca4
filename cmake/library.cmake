# The engine: one set of objects, linked into the shared library (exports candid_* only) and into a static archive that
# the CLI and the tests use to reach internals.
file(GLOB CANDID_SOURCES CONFIGURE_DEPENDS
     src/core/*.c src/model/*.c src/backend/*.c src/backend/cpu/*.c src/lm/*.c src/vision/*.c
     src/interventions/*.c src/decode/*.c src/api/*.c src/host/*.c)

# Kernel files carry their instruction set in their name and are compiled for it alone; the run-time choice is made in
# src/backend/cpu/features.c.
set(avx2_flags -mavx2 -mfma -mf16c)
set(avx512_flags ${avx2_flags} -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mprefer-vector-width=512)
foreach(source IN LISTS CANDID_SOURCES)
  if(source MATCHES "_(avx2|avx512)\\.c$")
    set(isa ${CMAKE_MATCH_1})
    if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
      set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "${${isa}_flags}")
    else()
      list(REMOVE_ITEM CANDID_SOURCES ${source})
    endif()
  elseif(source MATCHES "_neon\\.c$" AND NOT CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
    list(REMOVE_ITEM CANDID_SOURCES ${source})
  endif()
endforeach()

if(CANDID_JPEG_TURBO)
  list(FILTER CANDID_SOURCES EXCLUDE REGEX "/jpeg_stb\\.c$")
else()
  list(FILTER CANDID_SOURCES EXCLUDE REGEX "/jpeg_turbo\\.c$")
endif()

# The JPEG writer of stb_image_write shifts bits out of an int on purpose.
if(CANDID_SANITIZE)
  set_source_files_properties(src/vision/png_write.c PROPERTIES COMPILE_OPTIONS -fno-sanitize=shift)
endif()

# configs/models.json, the table of known models, becomes part of the library.
set(models_json ${PROJECT_SOURCE_DIR}/configs/models.json)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${models_json})
file(READ ${models_json} models_bytes HEX)
string(REGEX REPLACE "(..)" "0x\\1," models_bytes "${models_bytes}")
file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/models_json.c @ONLY CONTENT
     "#include <stddef.h>\nextern const char candid_models_json[];\nextern const size_t candid_models_json_size;\nconst char candid_models_json[] = {@models_bytes@0};\nconst size_t candid_models_json_size = sizeof candid_models_json - 1;\n")

add_library(candid_objects OBJECT ${CANDID_SOURCES} ${PROJECT_BINARY_DIR}/models_json.c)
target_include_directories(candid_objects SYSTEM PRIVATE ${STB_INCLUDE_DIR})
target_link_libraries(candid_objects PRIVATE candid_flags PUBLIC DNNL::dnnl PkgConfig::CJSON OpenMP::OpenMP_C m)
if(CANDID_JPEG_TURBO)
  target_link_libraries(candid_objects PUBLIC PkgConfig::LIBJPEG)
endif()
if(CMAKE_BUILD_TYPE MATCHES "Release|RelWithDebInfo" AND NOT CANDID_SANITIZE)
  target_compile_options(candid_objects PRIVATE -O3)
endif()

add_library(candid_static STATIC)
target_link_libraries(candid_static PUBLIC candid_objects candid_flags)

add_library(candid SHARED)
target_link_libraries(candid PRIVATE candid_objects)
target_include_directories(candid INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
                                            $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
set(version_script ${PROJECT_SOURCE_DIR}/cmake/candid.map)
target_link_options(candid PRIVATE -Wl,--version-script=${version_script} -Wl,--no-undefined)
set_target_properties(candid PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}
                                        LINK_DEPENDS ${version_script})
