# Target omnima_torch: the LibTorch and the pybind11 that the interpreter's torch carries.
find_package(Python 3.10 REQUIRED COMPONENTS Interpreter Development.Module)
execute_process(
  COMMAND ${Python_EXECUTABLE} -c
          "import torch, pathlib; print(pathlib.Path(torch.__file__).parent); print(torch.__version__); print(int(torch._C._GLIBCXX_USE_CXX11_ABI)); print(torch.version.cuda or '')"
  OUTPUT_VARIABLE torch_facts RESULT_VARIABLE torch_status ERROR_VARIABLE torch_error
  OUTPUT_STRIP_TRAILING_WHITESPACE)
if(NOT torch_status EQUAL 0)
  message(FATAL_ERROR "omnima builds against the torch of ${Python_EXECUTABLE}, which does not import:\n"
                      "${torch_error}\nInstall it first: pip install torch==2.13.0")
endif()
string(REPLACE "\n" ";" torch_facts "${torch_facts}")
list(GET torch_facts 0 TORCH_ROOT)
list(GET torch_facts 1 TORCH_VERSION)
list(GET torch_facts 2 TORCH_CXX11_ABI)
message(STATUS "torch ${TORCH_VERSION} at ${TORCH_ROOT}")

add_library(omnima_torch INTERFACE)
target_include_directories(omnima_torch SYSTEM INTERFACE
  ${TORCH_ROOT}/include ${TORCH_ROOT}/include/torch/csrc/api/include)
target_compile_definitions(omnima_torch INTERFACE
  _GLIBCXX_USE_CXX11_ABI=${TORCH_CXX11_ABI} OMNIMA_TORCH_VERSION="${TORCH_VERSION}")
# at::parallel_for runs on one thread in a file compiled without OpenMP.
target_compile_options(omnima_torch INTERFACE -fopenmp)
set(torch_libraries c10 torch_cpu torch)
if(OMNIMA_CUDA)
  list(GET torch_facts 3 TORCH_CUDA)
  if(NOT TORCH_CUDA)
    message(FATAL_ERROR "OMNIMA_CUDA needs a torch with CUDA; ${TORCH_VERSION} has none.")
  endif()
  # The toolkit's own headers first, then those that come with the wheels of torch.
  find_package(CUDAToolkit REQUIRED)
  file(GLOB wheel_headers ${TORCH_ROOT}/../nvidia/cu*/include)
  target_include_directories(omnima_torch SYSTEM INTERFACE ${CUDAToolkit_INCLUDE_DIRS}
                             ${wheel_headers})
  list(APPEND torch_libraries c10_cuda torch_cuda)
  # One CUDA runtime in the process: the shared one of the wheels, never a static second one.
  file(GLOB wheel_cudart ${TORCH_ROOT}/../nvidia/cu*/lib/libcudart.so.*)
  target_link_libraries(omnima_torch INTERFACE ${wheel_cudart})
endif()
foreach(library IN LISTS torch_libraries)
  target_link_libraries(omnima_torch INTERFACE ${TORCH_ROOT}/lib/lib${library}.so)
endforeach()
# The wheel carries its own libgomp: link that one, so that the process has one OpenMP runtime.
file(GLOB torch_gomp ${TORCH_ROOT}/lib/libgomp*.so*)
if(torch_gomp)
  list(GET torch_gomp 0 torch_gomp)
  target_link_libraries(omnima_torch INTERFACE ${torch_gomp})
endif()
