// Every subject registers its part of omnima._core with one function; module.cpp calls them in
// order.
#pragma once

#include <torch/csrc/utils/pybind.h>

namespace omnima::bindings {

namespace py = pybind11;

// Let C++ errors surface as the classes of omnima.errors.
void register_errors();

}  // namespace omnima::bindings
