#include "omnima/ops/linear.h"

#include "omnima/core/error.h"
#include "omnima/ops/linear_rows.h"
#include "omnima/ops/saved.h"

namespace omnima::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct LinearFunction : torch::autograd::Function<LinearFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, at::TensorList,
                            at::TensorList, const LinearRows& linear) {
    context->save_for_backward({x});
    keep(context, linear);
    return linear.forward(x);
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const at::Tensor x = context->get_saved_variables()[0];
    const auto linear = kept<LinearRows>(context);
    variable_list result;
    result.push_back(context->needs_input_grad(0) ? linear.input_gradient(grads[0]) : at::Tensor());
    for (auto& gradient : linear.parameter_gradients(x, grads[0])) result.push_back(gradient);
    result.emplace_back();  // linear
    return result;
  }
};

}  // namespace

void check_linear(int64_t features, const at::Tensor& x, const Weight& weight) {
  core::require(x.dim() > 0 && features == weight.compute.size(1) &&
                    x.scalar_type() == weight.compute.scalar_type(),
                "linear has a ", c10::toString(weight.compute.scalar_type()), " weight for ",
                weight.compute.size(1), " input features, but its input is ",
                c10::toString(x.scalar_type()), " of the shape ", x.sizes(), ".");
}

at::Tensor linear(const at::Tensor& x, const Weight& weight, const Weight& bias) {
  check_linear(x.dim() > 0 ? x.size(-1) : 0, x, weight);
  return LinearFunction::apply(x, at::TensorList(weight.leaves), at::TensorList(bias.leaves),
                               LinearRows(weight, bias));
}

}  // namespace omnima::ops
