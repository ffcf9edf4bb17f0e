#include "omnima/kernels/cuda/activation.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include "omnima/ops/cuda/operators.h"
#include "omnima/ops/cuda/seams.h"
#include "omnima/ops/dispatch.h"

namespace omnima::ops::cuda {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct SwigluFunction : torch::autograd::Function<SwigluFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input) {
    const at::Tensor x = input.contiguous();
    auto sizes = x.sizes().vec();
    sizes.back() /= 2;
    const at::Tensor y = at::empty(sizes, x.options());
    by_dtype(x, "swiglu", [&]<class T>(T*) {
      on_stream(x, [&](auto stream) {
        kernels::cuda::swiglu_forward<T>(data<T>(x), data<T>(y), y.numel() / sizes.back(),
                                         sizes.back(), stream);
      });
    });
    context->save_for_backward({x});
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const at::Tensor x = context->get_saved_variables()[0], dy = grads[0].contiguous();
    const int64_t width = x.size(-1) / 2;
    const at::Tensor dx = at::empty_like(x);
    by_dtype(x, "swiglu", [&]<class T>(T*) {
      on_stream(x, [&](auto stream) {
        kernels::cuda::swiglu_backward<T>(data<T>(x), data<T>(dy), data<T>(dx), dy.numel() / width,
                                          width, stream);
      });
    });
    return {dx};
  }
};

struct GeluFunction : torch::autograd::Function<GeluFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input, bool by_tanh) {
    const at::Tensor x = input.contiguous(), y = at::empty_like(x);
    by_dtype(x, "gelu", [&]<class T>(T*) {
      on_stream(x, [&](auto stream) {
        kernels::cuda::gelu_forward<T>(data<T>(x), data<T>(y), x.numel(), by_tanh, stream);
      });
    });
    context->save_for_backward({x});
    context->saved_data["by_tanh"] = by_tanh;
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const at::Tensor x = context->get_saved_variables()[0], dy = grads[0].contiguous();
    const bool by_tanh = context->saved_data["by_tanh"].toBool();
    const at::Tensor dx = at::empty_like(x);
    by_dtype(x, "gelu", [&]<class T>(T*) {
      on_stream(x, [&](auto stream) {
        kernels::cuda::gelu_backward<T>(data<T>(x), data<T>(dy), data<T>(dx), x.numel(), by_tanh,
                                        stream);
      });
    });
    return {dx, at::Tensor()};
  }
};

}  // namespace

at::Tensor swiglu(const at::Tensor& gate_up) { return SwigluFunction::apply(gate_up); }

at::Tensor gelu(const at::Tensor& x, bool by_tanh) { return GeluFunction::apply(x, by_tanh); }

}  // namespace omnima::ops::cuda
