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

struct SoftCapFunction : torch::autograd::Function<SoftCapFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, double cap) {
    const at::Tensor y = soft_cap_rows(x.contiguous(), cap);
    context->save_for_backward({y});
    keep(context, cap);
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const at::Tensor y = context->get_saved_variables()[0];
    return {soft_cap_gradient(y, grads[0].contiguous(), kept<double>(context)), at::Tensor()};
  }
};

void check_gated(const at::Tensor& gate_up, const char* op) {
  core::require(gate_up.dim() > 0 && gate_up.size(-1) > 0 && gate_up.size(-1) % 2 == 0, op,
                " takes gate and up side by side: an even last dimension, not the shape ",
                gate_up.sizes(), ".");
}

// The plain meaning, also on devices, whose tables lack these.

}  // namespace

Activation activation_of(const std::string& name) {
  if (name == "swiglu") return Activation::kSwiglu;
  if (name == "gelu") return Activation::kGelu;
  if (name == "gelu_tanh") return Activation::kGeluTanh;
  if (name == "geglu") return Activation::kGeglu;
  if (name == "geglu_tanh") return Activation::kGegluTanh;
  core::require(name == "relu2", "There is no activation \"", name,
                "\": use swiglu, gelu, gelu_tanh, geglu, geglu_tanh or relu2.");
  return Activation::kRelu2;
}

bool is_gated(Activation activation) {
  return activation == Activation::kSwiglu || activation == Activation::kGeglu ||
         activation == Activation::kGegluTanh;
}

int64_t activated_size(int64_t inputs, Activation activation) {
  return is_gated(activation) ? inputs / 2 : inputs;
}

at::Tensor activate(const at::Tensor& x, Activation activation) {
  switch (activation) {
    case Activation::kSwiglu:
      return swiglu(x);
    case Activation::kGeglu:
    case Activation::kGegluTanh:
      return geglu(x, activation == Activation::kGegluTanh);
    case Activation::kRelu2:
      return relu2(x);
    default:
      return gelu(x, activation == Activation::kGeluTanh);
  }
}

at::Tensor swiglu(const at::Tensor& gate_up) {
  check_gated(gate_up, "swiglu");
  if (const auto* device = device_ops(gate_up)) return device->swiglu(gate_up);
  if (runs_plain(gate_up)) return reference::swiglu(gate_up);
  return ActivationFunction::apply(gate_up, Activation::kSwiglu);
}

at::Tensor gelu(const at::Tensor& x, bool by_tanh) {
  if (const auto* device = device_ops(x)) return device->gelu(x, by_tanh);
  if (runs_plain(x)) return reference::gelu(x, by_tanh);
  return ActivationFunction::apply(x, by_tanh ? Activation::kGeluTanh : Activation::kGelu);
}

at::Tensor geglu(const at::Tensor& gate_up, bool by_tanh) {
  check_gated(gate_up, "geglu");
  if (runs_plain(gate_up)) return reference::geglu(gate_up, by_tanh);
  return ActivationFunction::apply(gate_up, by_tanh ? Activation::kGegluTanh : Activation::kGeglu);
}

at::Tensor relu2(const at::Tensor& x) {
  if (runs_plain(x)) return reference::relu2(x);
  return ActivationFunction::apply(x, Activation::kRelu2);
}

at::Tensor soft_cap(const at::Tensor& x, double cap) {
  core::require(cap >= 0, "soft_cap takes a cap of at least 0, not ", cap, ".");
  if (cap == 0) return x;
  if (runs_plain(x)) return reference::soft_cap(x, cap);
  return SoftCapFunction::apply(x, cap);
}

}  // namespace omnima::ops
