#include "omnima/ops/activation_rows.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include "omnima/kernels/cpu/activation.h"
#include "omnima/ops/dispatch.h"

namespace omnima::ops {
namespace {

const char* name(Activation activation) {
  return activation == Activation::kSwiglu ? "swiglu" : "gelu";
}

const char* forward_name(Activation activation) {
  return activation == Activation::kSwiglu ? "swiglu.forward" : "gelu.forward";
}

const char* backward_name(Activation activation) {
  return activation == Activation::kSwiglu ? "swiglu.backward" : "gelu.backward";
}

// Calls f(first, count) for rows of `width` outputs on all threads.
template <class F>
void over_rows(int64_t rows, int64_t width, F f) {
  at::parallel_for(0, rows, row_grain(width),
                   [&](int64_t begin, int64_t end) { f(begin, end - begin); });
}

}  // namespace

at::Tensor activate_rows(const at::Tensor& x, Activation activation) {
  const int64_t in = x.size(-1), width = activated_size(in, activation);
  const core::Scope scope(forward_name(activation), 0,
                          bytes_of(x) * static_cast<double>(in + width) / static_cast<double>(in));
  auto sizes = x.sizes().vec();
  sizes.back() = width;
  const at::Tensor y = at::empty(sizes, x.options());
  by_dtype(x, name(activation), [&]<class T>(T*) {
    const auto& kernels = kernels::activation_kernels<T>();
    over_rows(x.numel() / in, width, [&](int64_t first, int64_t rows) {
      const T* from = data<T>(x) + first * in;
      T* to = data<T>(y) + first * width;
      if (activation == Activation::kSwiglu) return kernels.swiglu_forward(from, to, rows, width);
      kernels.gelu_forward(from, to, rows * width, activation == Activation::kGeluTanh);
    });
  });
  return y;
}

at::Tensor activation_gradient(const at::Tensor& x, const at::Tensor& dy, Activation activation) {
  const core::Scope scope(backward_name(activation), 0, bytes_of(x, x, dy));
  const int64_t in = x.size(-1), width = dy.size(-1);
  const at::Tensor dx = at::empty_like(x);
  by_dtype(x, name(activation), [&]<class T>(T*) {
    const auto& kernels = kernels::activation_kernels<T>();
    over_rows(x.numel() / in, width, [&](int64_t first, int64_t rows) {
      const T* from = data<T>(x) + first * in;
      const T* slope = data<T>(dy) + first * width;
      T* to = data<T>(dx) + first * in;
      if (activation == Activation::kSwiglu) {
        return kernels.swiglu_backward(from, slope, to, rows, width);
      }
      kernels.gelu_backward(from, slope, to, rows * width, activation == Activation::kGeluTanh);
    });
  });
  return dx;
}

}  // namespace omnima::ops
