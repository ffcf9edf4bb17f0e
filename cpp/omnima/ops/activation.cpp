#include "omnima/ops/activation.h"

#include "omnima/core/error.h"
#include "omnima/ops/activation_rows.h"
#include "omnima/ops/device_ops.h"
#include "omnima/ops/reference.h"
#include "omnima/ops/saved.h"

namespace omnima::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct ActivationFunction : torch::autograd::Function<ActivationFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input,
                            Activation activation) {
    const at::Tensor x = input.contiguous();
    context->save_for_backward({x});
    keep(context, activation);
    return activate_rows(x, activation);
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const at::Tensor x = context->get_saved_variables()[0];
    return {activation_gradient(x, grads[0].contiguous(), kept<Activation>(context)), at::Tensor()};
  }
};

}  // namespace

Activation activation_of(const std::string& name) {
  if (name == "swiglu") return Activation::kSwiglu;
  if (name == "gelu") return Activation::kGelu;
  core::require(name == "gelu_tanh", "There is no activation \"", name,
                "\": use swiglu, gelu or gelu_tanh.");
  return Activation::kGeluTanh;
}

int64_t activated_size(int64_t inputs, Activation activation) {
  return activation == Activation::kSwiglu ? inputs / 2 : inputs;
}

at::Tensor activate(const at::Tensor& x, Activation activation) {
  if (activation == Activation::kSwiglu) return swiglu(x);
  return gelu(x, activation == Activation::kGeluTanh);
}

at::Tensor swiglu(const at::Tensor& gate_up) {
  core::require(gate_up.dim() > 0 && gate_up.size(-1) > 0 && gate_up.size(-1) % 2 == 0,
                "swiglu takes gate and up side by side: an even last dimension, not the shape ",
                gate_up.sizes(), ".");
  if (const auto* device = device_ops(gate_up)) return device->swiglu(gate_up);
  if (!gate_up.is_cpu() || reference_mode()) return reference::swiglu(gate_up);
  return ActivationFunction::apply(gate_up, Activation::kSwiglu);
}

at::Tensor gelu(const at::Tensor& x, bool by_tanh) {
  if (const auto* device = device_ops(x)) return device->gelu(x, by_tanh);
  if (!x.is_cpu() || reference_mode()) return reference::gelu(x, by_tanh);
  return ActivationFunction::apply(x, by_tanh ? Activation::kGeluTanh : Activation::kGelu);
}

}  // namespace omnima::ops
