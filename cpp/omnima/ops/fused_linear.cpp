#include "omnima/ops/fused_linear.h"

#include "omnima/core/error.h"
#include "omnima/ops/activation_rows.h"
#include "omnima/ops/device_ops.h"
#include "omnima/ops/linear.h"
#include "omnima/ops/linear_rows.h"
#include "omnima/ops/norm_rows.h"
#include "omnima/ops/saved.h"

namespace omnima::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct NormThenLinear {
  NormRows norm;
  LinearRows linear;
  bool adds;  // a change to x
};

// Gives the product and, where there was something to add, the sum before it.
struct NormLinearFunction : torch::autograd::Function<NormLinearFunction> {
  static variable_list forward(AutogradContext* context, const at::Tensor& x, at::TensorList change,
                               at::TensorList, at::TensorList, at::TensorList, at::TensorList,
                               NormThenLinear layer) {
    at::Tensor sum;
    const at::Tensor normed = layer.norm.forward(x, layer.adds ? change[0] : at::Tensor(), sum);
    at::Tensor needed;
    const at::Tensor y = layer.linear.forward(normed, &needed);
    context->save_for_backward({sum, needed});
    context->set_materialize_grads(false);
    keep(context, layer);
    if (layer.adds) return {y, sum};
    return {y};
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto saved = context->get_saved_variables();
    const at::Tensor sum = saved[0], dy = grads[0];
    const auto layer = kept<NormThenLinear>(context);
    const at::Tensor normed = layer.linear.reads_input() ? layer.norm.again(sum) : at::Tensor();
    const auto of_linear = layer.linear.backward(normed, saved[1], dy);
    const at::Tensor skip = layer.adds && grads[1].defined() ? grads[1].contiguous() : at::Tensor();
    const auto of_norm = layer.norm.backward(sum, of_linear.input, skip);
    variable_list result{of_norm.input};
    if (layer.adds) result.push_back(of_norm.input);
    for (const auto& gradient : of_norm.parameters) result.push_back(gradient);
    for (const auto& gradient : of_linear.parameters) result.push_back(gradient);
    result.emplace_back();  // layer
    return result;
  }
};

struct ActivationThenLinear {
  Activation activation;
  LinearRows linear;
};

struct ActivationLinearFunction : torch::autograd::Function<ActivationLinearFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, at::TensorList,
                            at::TensorList, at::TensorList, const ActivationThenLinear& layer) {
    at::Tensor needed;
    const at::Tensor y = layer.linear.forward(activate_rows(x, layer.activation), &needed);
    context->save_for_backward({x, needed});
    keep(context, layer);
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto saved = context->get_saved_variables();
    const at::Tensor x = saved[0];
    const auto [activation, linear] = kept<ActivationThenLinear>(context);
    const at::Tensor read = linear.reads_input() ? activate_rows(x, activation) : at::Tensor();
    const auto of_linear = linear.backward(read, saved[1], grads[0]);
    variable_list result{activation_gradient(x, of_linear.input, activation)};
    for (const auto& gradient : of_linear.parameters) result.push_back(gradient);
    result.emplace_back();  // layer
    return result;
  }
};

// Elsewhere the parts run one by one, on the device's kernels or on plain ATen.
bool fuses(const at::Tensor& x) { return !runs_plain(x) && device_ops(x) == nullptr; }

}  // namespace

std::pair<at::Tensor, at::Tensor> norm_linear(const at::Tensor& x, const at::Tensor& change,
                                              const NormWeight& norm, const Weight& weight,
                                              const Weight& bias, const Adapted& adapted) {
  const bool adds = change.defined();
  core::require(!adds || (change.sizes() == x.sizes() && change.dtype() == x.dtype()),
                "norm_linear adds to the shape ", x.sizes(), " a change of the shape ",
                adds ? change.sizes() : x.sizes(), ".");
  if (!fuses(x)) {
    const at::Tensor sum = adds ? x.add(change) : x;
    return {sum, linear(ops::norm(sum, norm), weight, bias, adapted)};
  }
  check_norm(x, norm);
  check_linear(x.size(-1), x, weight);
  const auto norm_leaves = norm.leaves();
  const auto leaves = adapted.leaves();
  std::vector<at::Tensor> changes;
  if (adds) changes.push_back(change.contiguous());
  const auto made = NormLinearFunction::apply(
      x.contiguous(), at::TensorList(changes), at::TensorList(norm_leaves),
      at::TensorList(weight.leaves), at::TensorList(bias.leaves), at::TensorList(leaves),
      NormThenLinear{NormRows(norm), LinearRows(weight, bias, adapted), adds});
  return {adds ? made[1] : x, made[0]};
}

at::Tensor activation_linear(const at::Tensor& x, Activation activation, const Weight& weight,
                             const Weight& bias, const Adapted& adapted) {
  if (!fuses(x)) return linear(activate(x, activation), weight, bias, adapted);
  check_linear(activated_size(x.size(-1), activation), x, weight);
  const auto leaves = adapted.leaves();
  return ActivationLinearFunction::apply(
      x.contiguous(), at::TensorList(weight.leaves), at::TensorList(bias.leaves),
      at::TensorList(leaves), ActivationThenLinear{activation, LinearRows(weight, bias, adapted)});
}

}  // namespace omnima::ops
