#include "omnima/kernels/cuda/norm.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include "omnima/ops/cuda/operators.h"
#include "omnima/ops/cuda/seams.h"
#include "omnima/ops/dispatch.h"

namespace omnima::ops::cuda {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

float* floats(const at::Tensor& x) { return x.defined() ? x.data_ptr<float>() : nullptr; }

kernels::cuda::NormShape shape_of(const at::Tensor& x, double eps) {
  return {x.numel() / x.size(-1), x.size(-1), static_cast<float>(eps)};
}

// RMSNorm where `bias` has no leaves.
struct NormFunction : torch::autograd::Function<NormFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input,
                            const at::Tensor& leaf, at::TensorList bias_leaf, const Weight& weight,
                            const Weight& bias, double eps) {
    const at::Tensor x = input.contiguous(), y = at::empty_like(x);
    const auto shape = shape_of(x, eps);
    const bool centred = !bias.leaves.empty();
    const at::Tensor rstd = at::empty({shape.rows}, x.options().dtype(at::kFloat));
    const at::Tensor mean = centred ? at::empty_like(rstd) : at::Tensor();
    by_dtype(x, "norm", [&]<class T>(T*) {
      const kernels::cuda::NormForward<T> tensors{
          data<T>(x), nullptr,    floats(weight.compute), floats(bias.compute),
          nullptr,    data<T>(y), floats(mean),           floats(rstd)};
      on_stream(x, [&](auto stream) { kernels::cuda::norm_forward(tensors, shape, stream); });
    });
    context->save_for_backward({x});
    auto& saved = context->saved_data;
    saved["mean"] = mean;
    saved["rstd"] = rstd;
    saved["weight"] = weight.compute;
    saved["grad"] = weight.grad;
    saved["bias_grad"] = bias.grad;
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    auto& saved = context->saved_data;
    const at::Tensor x = context->get_saved_variables()[0], dy = grads[0].contiguous();
    const at::Tensor mean = saved["mean"].toTensor(), rstd = saved["rstd"].toTensor(),
                     weight = saved["weight"].toTensor();
    const bool centred = mean.defined();
    const auto shape = shape_of(x, 0);
    // Gradients are added where the step keeps them, or to zeros that autograd takes.
    const auto target = [&](const char* name) {
      const at::Tensor kept = saved[name].toTensor();
      return kept.defined() ? kept : at::zeros_like(weight);
    };
    const at::Tensor dweight = target("grad"), dbias = centred ? target("bias_grad") : at::Tensor();
    const at::Tensor dx = at::empty_like(x);
    const at::Tensor partial = at::empty(
        {(centred ? 2 : 1) * kernels::cuda::norm_parts(shape.rows), shape.cols}, weight.options());
    by_dtype(x, "norm", [&]<class T>(T*) {
      const kernels::cuda::NormBackward<T> tensors{
          data<T>(x), floats(weight), floats(mean),    floats(rstd),    data<T>(dy),
          nullptr,    data<T>(dx),    floats(partial), floats(dweight), floats(dbias)};
      on_stream(x, [&](auto stream) { kernels::cuda::norm_backward(tensors, shape, stream); });
    });
    const auto given = [&](const char* name, const at::Tensor& gradient) {
      return saved[name].toTensor().defined() ? at::Tensor() : gradient;
    };
    variable_list result{dx, given("grad", dweight)};
    if (centred) result.push_back(given("bias_grad", dbias));
    result.resize(result.size() + 3);  // weight, bias, eps
    return result;
  }
};

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const Weight& weight, double eps) {
  return NormFunction::apply(x, weight.leaves[0], at::TensorList(), weight, Weight{}, eps);
}

at::Tensor layer_norm(const at::Tensor& x, const Weight& weight, const Weight& bias, double eps) {
  return NormFunction::apply(x, weight.leaves[0], at::TensorList(bias.leaves), weight, bias, eps);
}

}  // namespace omnima::ops::cuda
