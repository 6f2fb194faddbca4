# The CUDA backend. Its C files are compiled like all others; its kernels (*.cu) by nvcc in commands of their own, so that
# CMake keeps linking everything as C. The CUDA runtime is linked statically and finds the driver at run time, cuBLAS is
# opened at run time (src/backend/cuda/blas.c): a library built with CUDA loads on machines that have neither.
set(CANDID_CUDA_BUILT OFF)
string(TOLOWER "${CANDID_CUDA}" cuda_wanted)
if(cuda_wanted STREQUAL "off" OR cuda_wanted STREQUAL "0" OR cuda_wanted STREQUAL "no")
  return()
endif()
find_package(CUDAToolkit 12.0 QUIET)
if(NOT CUDAToolkit_FOUND OR NOT CUDAToolkit_NVCC_EXECUTABLE OR NOT TARGET CUDA::cudart_static)
  if(cuda_wanted STREQUAL "auto")
    message(STATUS "CUDA backend: not built (no CUDA toolkit 12.0 or newer found)")
    return()
  endif()
  message(FATAL_ERROR "CANDID_CUDA=${CANDID_CUDA}, but no CUDA toolkit 12.0 or newer with nvcc and the static runtime "
                      "was found: put nvcc on PATH, set CUDAToolkit_ROOT, or configure with -DCANDID_CUDA=off")
endif()
find_path(CUBLAS_HEADER cublas_v2.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
if(NOT CUBLAS_HEADER)
  message(FATAL_ERROR "cublas_v2.h of the CUDA toolkit not found: install its cuBLAS headers, or configure with "
                      "-DCANDID_CUDA=off")
endif()
set(CANDID_CUDA_BUILT ON)
message(STATUS "CUDA backend: ${CUDAToolkit_VERSION} for sm_80, sm_90 and PTX")

file(GLOB cuda_sources CONFIGURE_DEPENDS src/backend/cuda/*.c)
file(GLOB cuda_kernels CONFIGURE_DEPENDS src/backend/cuda/*.cu)
# Machine code for A100 and H100/H200; PTX for what comes after, which the driver compiles at first use.
set(nvcc_flags -std=c++17 -O3 -lineinfo -I${PROJECT_SOURCE_DIR}/src -I${PROJECT_SOURCE_DIR}/include
               -Werror all-warnings -Xcompiler -fPIC,-fvisibility=hidden,-fno-exceptions,-fno-threadsafe-statics,-Wall,-Wextra
               -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90,code=[sm_90,compute_90])
foreach(kernel IN LISTS cuda_kernels)
  get_filename_component(name ${kernel} NAME_WE)
  set(object ${PROJECT_BINARY_DIR}/cuda/${name}.o)
  add_custom_command(
    OUTPUT ${object}
    COMMAND ${CUDAToolkit_NVCC_EXECUTABLE} -c ${nvcc_flags} -MD -MF ${object}.d ${kernel} -o ${object}
    DEPENDS ${kernel} DEPFILE ${object}.d
    COMMENT "Compiling CUDA kernels ${name}.cu" VERBATIM)
  list(APPEND cuda_objects ${object})
endforeach()
file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/cuda)
set_source_files_properties(${cuda_objects} PROPERTIES EXTERNAL_OBJECT ON GENERATED ON)
add_library(candid_cuda_kernels STATIC ${cuda_objects})
set_target_properties(candid_cuda_kernels PROPERTIES LINKER_LANGUAGE C)
