#include "omnima/ops/activation.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include "omnima/kernels/cpu/activation.h"
#include "omnima/ops/device_ops.h"
#include "omnima/ops/dispatch.h"
#include "omnima/ops/reference.h"
#include "omnima/ops/weight.h"

namespace omnima::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct SwigluFunction : torch::autograd::Function<SwigluFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input) {
    const core::Scope scope("swiglu.forward", 0, 1.5 * bytes_of(input));
    const at::Tensor x = input.contiguous();
    const int64_t width = x.size(-1) / 2, rows = x.numel() / x.size(-1);
    auto sizes = x.sizes().vec();
    sizes.back() = width;
    const at::Tensor y = at::empty(sizes, x.options());
    by_dtype(x, "swiglu", [&]<class T>(T*) {
      at::parallel_for(0, rows, row_grain(width), [&](int64_t begin, int64_t end) {
        kernels::activation_kernels<T>().swiglu_forward(
            data<T>(x) + 2 * begin * width, data<T>(y) + begin * width, end - begin, width);
      });
    });
    context->save_for_backward({x});
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const core::Scope scope("swiglu.backward", 0, 5 * bytes_of(grads[0]));
    const at::Tensor x = context->get_saved_variables()[0];
    const at::Tensor dy = grads[0].contiguous();
    const int64_t width = x.size(-1) / 2, rows = x.numel() / x.size(-1);
    const at::Tensor dx = at::empty_like(x);
    by_dtype(x, "swiglu", [&]<class T>(T*) {
      at::parallel_for(0, rows, row_grain(width), [&](int64_t begin, int64_t end) {
        kernels::activation_kernels<T>().swiglu_backward(
            data<T>(x) + 2 * begin * width, data<T>(dy) + begin * width,
            data<T>(dx) + 2 * begin * width, end - begin, width);
      });
    });
    return {dx};
  }
};

struct GeluFunction : torch::autograd::Function<GeluFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input, bool by_tanh) {
    const core::Scope scope("gelu.forward", 0, 2 * bytes_of(input));
    const at::Tensor x = input.contiguous();
    const at::Tensor y = at::empty_like(x);
    by_dtype(x, "gelu", [&]<class T>(T*) {
      at::parallel_for(0, x.numel(), 16384, [&](int64_t begin, int64_t end) {
        kernels::activation_kernels<T>().gelu_forward(data<T>(x) + begin, data<T>(y) + begin,
                                                      end - begin, by_tanh);
      });
    });
    context->save_for_backward({x});
    context->saved_data["by_tanh"] = by_tanh;
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const core::Scope scope("gelu.backward", 0, 3 * bytes_of(grads[0]));
    const at::Tensor x = context->get_saved_variables()[0];
    const at::Tensor dy = grads[0].contiguous();
    const bool by_tanh = context->saved_data["by_tanh"].toBool();
    const at::Tensor dx = at::empty_like(x);
    by_dtype(x, "gelu", [&]<class T>(T*) {
      at::parallel_for(0, x.numel(), 16384, [&](int64_t begin, int64_t end) {
        kernels::activation_kernels<T>().gelu_backward(data<T>(x) + begin, data<T>(dy) + begin,
                                                       data<T>(dx) + begin, end - begin, by_tanh);
      });
    });
    return {dx, at::Tensor()};
  }
};

}  // namespace

at::Tensor swiglu(const at::Tensor& gate_up) {
  core::require(gate_up.dim() > 0 && gate_up.size(-1) > 0 && gate_up.size(-1) % 2 == 0,
                "swiglu takes gate and up side by side: an even last dimension, not the shape ",
                gate_up.sizes(), ".");
  if (const auto* device = device_ops(gate_up)) return device->swiglu(gate_up);
  if (!gate_up.is_cpu() || reference_mode()) return reference::swiglu(gate_up);
  return SwigluFunction::apply(gate_up);
}

at::Tensor gelu(const at::Tensor& x, bool by_tanh) {
  if (const auto* device = device_ops(x)) return device->gelu(x, by_tanh);
  if (!x.is_cpu() || reference_mode()) return reference::gelu(x, by_tanh);
  return GeluFunction::apply(x, by_tanh);
}

}  // namespace omnima::ops
