#include "omnima/ops/norm.h"

#include "omnima/core/error.h"
#include "omnima/ops/device_ops.h"
#include "omnima/ops/norm_rows.h"
#include "omnima/ops/reference.h"
#include "omnima/ops/saved.h"

namespace omnima::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct NormFunction : torch::autograd::Function<NormFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input, at::TensorList,
                            NormRows norm) {
    const at::Tensor x = input.contiguous();
    const at::Tensor y = norm.forward(x);
    context->save_for_backward({x});
    keep(context, norm);
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto gradients =
        kept<NormRows>(context).backward(context->get_saved_variables()[0], grads[0].contiguous());
    variable_list result{gradients.input};
    for (const auto& gradient : gradients.parameters) result.push_back(gradient);
    result.emplace_back();  // norm
    return result;
  }
};

}  // namespace

std::vector<at::Tensor> NormWeight::leaves() const {
  std::vector<at::Tensor> all = weight.leaves;
  all.insert(all.end(), bias.leaves.begin(), bias.leaves.end());
  return all;
}

void check_norm(const at::Tensor& x, const NormWeight& weight) {
  const int64_t cols = weight.weight.compute.numel();
  const char* op = weight.is_layer_norm() ? "layer_norm" : "rms_norm";
  core::require(x.dim() > 0 && cols > 0 && x.size(-1) == cols, op, " has a weight for rows of ",
                cols, " elements, but its input has the shape ", x.sizes(), ".");
  core::require(!weight.is_layer_norm() || weight.bias.compute.numel() == cols, op,
                " has a weight for rows of ", cols, " elements, but a bias for rows of ",
                weight.bias.compute.numel(), ".");
}

at::Tensor norm(const at::Tensor& x, const NormWeight& weight) {
  check_norm(x, weight);
  const auto& [scale, bias, eps] = weight;
  const bool layer = weight.is_layer_norm();
  if (const auto* device = device_ops(x)) {
    return layer ? device->layer_norm(x, scale, bias, eps) : device->rms_norm(x, scale, eps);
  }
  if (runs_plain(x)) {
    return layer ? reference::layer_norm(x, plain_leaf(scale), plain_leaf(bias), eps)
                 : reference::rms_norm(x, plain_leaf(scale), eps);
  }
  const auto leaves = weight.leaves();
  return NormFunction::apply(x, at::TensorList(leaves), NormRows(weight));
}

at::Tensor rms_norm(const at::Tensor& x, const Weight& weight, double eps) {
  return norm(x, {weight, {}, eps});
}

at::Tensor layer_norm(const at::Tensor& x, const Weight& weight, const Weight& bias, double eps) {
  return norm(x, {weight, bias, eps});
}

}  // namespace omnima::ops
