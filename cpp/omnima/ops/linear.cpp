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
                            at::TensorList, at::TensorList, const LinearRows& linear) {
    at::Tensor needed;
    const at::Tensor y = linear.forward(x, &needed);
    context->save_for_backward({x, needed});
    keep(context, linear);
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto saved = context->get_saved_variables();
    const auto linear = kept<LinearRows>(context);
    const auto made = linear.backward(saved[0], saved[1], grads[0], context->needs_input_grad(0));
    variable_list result{made.input};
    for (const auto& gradient : made.parameters) result.push_back(gradient);
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

at::Tensor linear(const at::Tensor& x, const Weight& weight, const Weight& bias,
                  const Adapted& adapted) {
  check_linear(x.dim() > 0 ? x.size(-1) : 0, x, weight);
  const auto leaves = adapted.leaves();
  return LinearFunction::apply(x, at::TensorList(weight.leaves), at::TensorList(bias.leaves),
                               at::TensorList(leaves), LinearRows(weight, bias, adapted));
}

}  // namespace omnima::ops
