# Third-party libraries; each failure names the Debian package that provides it.
find_package(OpenMP COMPONENTS C)
if(NOT OpenMP_C_FOUND)
  message(FATAL_ERROR "OpenMP not found: install libgomp (gcc) or libomp-dev (clang)")
endif()

find_package(dnnl CONFIG QUIET)
if(NOT dnnl_FOUND)
  message(FATAL_ERROR "oneDNN not found: install libdnnl-dev")
endif()

find_package(PkgConfig REQUIRED)
pkg_check_modules(CJSON IMPORTED_TARGET libcjson)
if(NOT CJSON_FOUND)
  message(FATAL_ERROR "cJSON not found: install libcjson-dev")
endif()

find_path(STB_INCLUDE_DIR stb_image.h PATH_SUFFIXES stb)
if(NOT STB_INCLUDE_DIR)
  message(FATAL_ERROR "stb_image.h not found: install libstb-dev")
endif()

# Optional: with libjpeg-turbo the pixels of JPEG images are Pillow's to the byte, with stb_image nearly so.
option(CANDID_LIBJPEG "Decode JPEG by libjpeg-turbo when it is found" ON)
if(CANDID_LIBJPEG)
  pkg_check_modules(LIBJPEG IMPORTED_TARGET libjpeg)
endif()
if(CANDID_LIBJPEG AND LIBJPEG_FOUND)
  set(CANDID_JPEG_TURBO ON)
  message(STATUS "JPEG images: libjpeg-turbo ${LIBJPEG_VERSION}")
else()
  message(STATUS "JPEG images: stb_image (install libjpeg-dev for pixels equal to Pillow's)")
endif()

include(cmake/cuda.cmake)

if(CANDID_BUILD_TESTS)
  pkg_check_modules(CMOCKA IMPORTED_TARGET cmocka)
  if(NOT CMOCKA_FOUND)
    message(FATAL_ERROR "cmocka not found: install libcmocka-dev, or configure with -DCANDID_BUILD_TESTS=OFF")
  endif()
endif()
