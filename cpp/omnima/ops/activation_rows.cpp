#include "omnima/ops/activation_rows.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include "omnima/kernels/cpu/activation.h"
#include "omnima/ops/dispatch.h"

namespace omnima::ops {
namespace {

struct Names {
  const char *op, *forward, *backward;
};

Names names_of(Activation activation) {
  switch (activation) {
    case Activation::kSwiglu:
      return {"swiglu", "swiglu.forward", "swiglu.backward"};
    case Activation::kGeglu:
    case Activation::kGegluTanh:
      return {"geglu", "geglu.forward", "geglu.backward"};
    case Activation::kRelu2:
      return {"relu2", "relu2.forward", "relu2.backward"};
    default:
      return {"gelu", "gelu.forward", "gelu.backward"};
  }
}

bool by_tanh(Activation activation) {
  return activation == Activation::kGeluTanh || activation == Activation::kGegluTanh;
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
  const core::Scope scope(names_of(activation).forward, 0,
                          bytes_of(x) * static_cast<double>(in + width) / static_cast<double>(in));
  auto sizes = x.sizes().vec();
  sizes.back() = width;
  const at::Tensor y = at::empty(sizes, x.options());
  by_dtype(x, names_of(activation).op, [&]<class T>(T*) {
    const auto& kernels = kernels::activation_kernels<T>();
    over_rows(x.numel() / in, width, [&](int64_t first, int64_t rows) {
      const T* from = data<T>(x) + first * in;
      T* to = data<T>(y) + first * width;
      if (activation == Activation::kSwiglu) return kernels.swiglu_forward(from, to, rows, width);
      if (activation == Activation::kRelu2) return kernels.relu2_forward(from, to, rows * width);
      if (is_gated(activation)) {
        return kernels.geglu_forward(from, to, rows, width, by_tanh(activation));
      }
      kernels.gelu_forward(from, to, rows * width, by_tanh(activation));
    });
  });
  return y;
}

at::Tensor activation_gradient(const at::Tensor& x, const at::Tensor& dy, Activation activation) {
  const core::Scope scope(names_of(activation).backward, 0, bytes_of(x, x, dy));
  const int64_t in = x.size(-1), width = dy.size(-1);
  const at::Tensor dx = at::empty_like(x);
  by_dtype(x, names_of(activation).op, [&]<class T>(T*) {
    const auto& kernels = kernels::activation_kernels<T>();
    over_rows(x.numel() / in, width, [&](int64_t first, int64_t rows) {
      const T* from = data<T>(x) + first * in;
      const T* slope = data<T>(dy) + first * width;
      T* to = data<T>(dx) + first * in;
      if (activation == Activation::kSwiglu) {
        return kernels.swiglu_backward(from, slope, to, rows, width);
      }
      if (activation == Activation::kRelu2) {
        return kernels.relu2_backward(from, slope, to, rows * width);
      }
      if (is_gated(activation)) {
        return kernels.geglu_backward(from, slope, to, rows, width, by_tanh(activation));
      }
      kernels.gelu_backward(from, slope, to, rows * width, by_tanh(activation));
    });
  });
  return dx;
}

at::Tensor soft_cap_rows(const at::Tensor& x, double cap) {
  const core::Scope scope("soft_cap.forward", 0, 2 * bytes_of(x));
  const at::Tensor y = at::empty_like(x);
  by_dtype(x, "soft_cap", [&]<class T>(T*) {
    over_rows(x.numel(), 1, [&](int64_t first, int64_t count) {
      kernels::activation_kernels<T>().soft_cap(data<T>(x) + first, data<T>(y) + first, count,
                                                static_cast<float>(cap));
    });
  });
  return y;
}

at::Tensor soft_cap_gradient(const at::Tensor& y, const at::Tensor& dy, double cap) {
  const core::Scope scope("soft_cap.backward", 0, 3 * bytes_of(y));
  const at::Tensor dx = at::empty_like(y);
  by_dtype(y, "soft_cap", [&]<class T>(T*) {
    over_rows(y.numel(), 1, [&](int64_t first, int64_t count) {
      kernels::activation_kernels<T>().soft_cap_backward(data<T>(y) + first, data<T>(dy) + first,
                                                         data<T>(dx) + first, count,
                                                         static_cast<float>(cap));
    });
  });
  return dx;
}

}  // namespace omnima::ops
