#include "omnima/ops/linear.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include "omnima/ops/dispatch.h"
#include "omnima/ops/product.h"

namespace omnima::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor as_rows(const at::Tensor& x) { return x.reshape({-1, x.size(-1)}); }

// Products of x [..., in] with a weight [out, in], or with gradients of these shapes.
core::Scope product_scope(const char* name, const at::Tensor& x, const at::Tensor& weight,
                          double products) {
  const double out = weight.size(0), rows = x.numel() / x.size(-1);
  return core::Scope(name, products * 2.0 * x.numel() * out,
                     products * (bytes_of(x, weight) + rows * out * x.element_size()));
}

at::Tensor times_weight(const at::Tensor& rows, const at::Tensor& weight,
                        const at::Tensor& packed) {
  if (!packed.defined()) return product(rows, weight);
  const at::Tensor y = at::empty({rows.size(0), weight.size(1)}, rows.options());
  product_out_packed(y, rows, weight, packed);
  return y;
}

struct LinearFunction : torch::autograd::Function<LinearFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, at::TensorList weights,
                            at::TensorList biases, const Weight& weight, const Weight& bias) {
    const auto scope = product_scope("linear.forward", x, weight.compute, 1);
    context->save_for_backward({x});
    context->saved_data["weight"] = weight.compute;
    context->saved_data["packed"] = weight.packed_backward;
    context->saved_data["weight_grad"] = weight.grad;
    context->saved_data["bias_grad"] = bias.grad;
    context->saved_data["weight_sizes"] = leaf_sizes(weight);
    context->saved_data["bias_sizes"] = leaf_sizes(bias);
    auto sizes = x.sizes().vec();
    sizes.back() = weight.compute.size(0);
    at::Tensor y = times_weight(as_rows(x), weight.compute.t(), weight.packed_forward);
    if (!bias.leaves.empty()) y.add_(bias.compute);
    return y.view(sizes);
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const at::Tensor x = context->get_saved_variables()[0];
    const at::Tensor weight = context->saved_data["weight"].toTensor();
    const auto scope = product_scope("linear.backward", x, weight, 2);
    at::Tensor weight_grad = context->saved_data["weight_grad"].toTensor();
    at::Tensor bias_grad = context->saved_data["bias_grad"].toTensor();
    const auto bias_sizes = context->saved_data["bias_sizes"].toIntVector();
    const at::Tensor dy = as_rows(grads[0]);
    variable_list result;
    const at::Tensor packed = context->saved_data["packed"].toTensor();
    result.push_back(context->needs_input_grad(0) ? times_weight(dy, weight, packed).view(x.sizes())
                                                  : at::Tensor());
    at::Tensor fused;
    if (weight_grad.defined()) {
      add_outer(weight_grad, dy, as_rows(x));
    } else {
      fused = at::zeros({dy.size(1), x.size(-1)}, dy.options().dtype(at::kFloat));
      add_outer(fused, dy, as_rows(x));
    }
    const auto sizes = context->saved_data["weight_sizes"].toIntVector();
    for (auto& gradient : leaf_gradients(sizes, fused)) result.push_back(gradient);
    at::Tensor fused_bias;
    if (!bias_sizes.empty()) {
      const at::Tensor sum = dy.sum(0, /*keepdim=*/false, at::kFloat);
      if (bias_grad.defined()) {
        bias_grad.add_(sum);
      } else {
        fused_bias = sum;
      }
    }
    for (auto& gradient : leaf_gradients(bias_sizes, fused_bias)) result.push_back(gradient);
    result.emplace_back();  // weight
    result.emplace_back();  // bias
    return result;
  }
};

}  // namespace

at::Tensor linear(const at::Tensor& x, const Weight& weight, const Weight& bias) {
  core::require(x.dim() > 0 && x.size(-1) == weight.compute.size(1) &&
                    x.scalar_type() == weight.compute.scalar_type(),
                "linear has a ", c10::toString(weight.compute.scalar_type()), " weight for ",
                weight.compute.size(1), " input features, but its input is ",
                c10::toString(x.scalar_type()), " of the shape ", x.sizes(), ".");
  return LinearFunction::apply(x, at::TensorList(weight.leaves), at::TensorList(bias.leaves),
                               weight, bias);
}

}  // namespace omnima::ops
