// What an operator keeps from its forward pass for its backward pass, beside the tensors that
// save_for_backward holds (those are freed as soon as backward has used them; this lives as long as
// the graph, so it is for what is small or not the operator's own).
#pragma once

#include <torch/csrc/autograd/custom_function.h>

#include <utility>

namespace omnima::ops {

template <class T>
struct Kept : torch::CustomClassHolder {
  explicit Kept(T kept) : value(std::move(kept)) {}
  T value;
};

template <class T>
void keep(torch::autograd::AutogradContext* context, T value) {
  context->saved_data["kept"] =
      c10::IValue::make_capsule(c10::make_intrusive<Kept<T>>(std::move(value)));
}

template <class T>
T kept(torch::autograd::AutogradContext* context) {
  return static_cast<const Kept<T>&>(*context->saved_data.at("kept").toCapsule()).value;
}

}  // namespace omnima::ops
