// Small helpers shared by operators: dtype dispatch to the raw kernels, and row ranges on all
// threads.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include "omnima/core/error.h"
#include "omnima/core/scope.h"
#include "omnima/kernels/cpu/number_types.h"

namespace omnima::ops {

// Calls f with a null pointer of the kernel's storage type: float* or kernels::bfloat16*.
template <class F>
auto by_dtype(const at::Tensor& x, const char* op, F f) {
  if (x.scalar_type() == at::kFloat) return f(static_cast<float*>(nullptr));
  core::require(x.scalar_type() == at::kBFloat16, op, " takes float32 or bfloat16, not ",
                c10::toString(x.scalar_type()), ".");
  return f(static_cast<kernels::bfloat16*>(nullptr));
}

template <class T>
T* data(const at::Tensor& x) {
  return static_cast<T*>(x.data_ptr());
}

// The bytes of these tensors, for core::Scope: what an operator reads or writes at least.
template <class... Tensors>
double bytes_of(const Tensors&... tensors) {
  return (0.0 + ... + (tensors.defined() ? static_cast<double>(tensors.nbytes()) : 0.0));
}

// Rows so that a task has about 16k elements: below that a thread costs more than it brings.
inline int64_t row_grain(int64_t cols) {
  return std::max<int64_t>(1, 16384 / std::max<int64_t>(1, cols));
}

}  // namespace omnima::ops
