#include "omnima/ops/loss_head.h"

#include <ATen/ops/empty_like.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "omnima/ops/product.h"

namespace omnima::ops {
namespace {

constexpr int64_t kPartNumbers = 1 << 21;

}  // namespace

LossHead::LossHead(const Weight& weight)
    : numbers_(weight.compute),
      packed_forward_(weight.packed_forward),
      packed_backward_(weight.packed_backward),
      held_(weight.held),
      type_(weight.compute.scalar_type()),
      vocab_(weight.compute.size(0)) {
  if (!held_) return;
  numbers_ = held_->as_they_lie(type_);
  part_ = std::max<int64_t>(1, kPartNumbers / held_->columns());
}

void LossHead::forward(const at::Tensor& logits, const at::Tensor& x) const {
  if (numbers_.defined()) return product_out_packed(logits, x, numbers_.t(), packed_forward_);
  for_parts([&](int64_t first, const at::Tensor& rows) {
    product_out(logits.narrow(1, first, rows.size(0)), x, rows.t());
  });
}

void LossHead::backward(const at::Tensor& dx, const at::Tensor& dlogits) const {
  if (numbers_.defined()) return product_out_packed(dx, dlogits, numbers_, packed_backward_);
  const at::Tensor sum = at::zeros(dx.sizes(), dx.options().dtype(at::kFloat));
  for_parts([&](int64_t first, const at::Tensor& rows) {
    add_product(sum, dlogits.narrow(1, first, rows.size(0)), rows);
  });
  dx.copy_(sum);
}

template <class F>
void LossHead::for_parts(F f) const {
  for (int64_t first = 0; first < held_->rows(); first += part_) {
    f(first, numbers_of(*held_, first, std::min(part_, held_->rows() - first), type_));
  }
}

LossGradients::LossGradients(const at::Tensor& hidden, const Weight& weight, bool with_gradient) {
  if (!with_gradient) return;
  of_hidden = at::empty_like(hidden);
  if (weight.frozen()) return;
  of_weight = weight.direct()
                  ? weight.grad
                  : at::zeros(weight.compute.sizes(), weight.compute.options().dtype(at::kFloat));
}

void LossGradients::save(torch::autograd::AutogradContext* context, const Weight& weight) const {
  context->saved_data["dhidden"] = of_hidden;
  context->saved_data["direct"] = weight.direct();
  context->saved_data["dweight"] = weight.direct() ? at::Tensor() : of_weight;
}

torch::autograd::variable_list LossGradients::of(torch::autograd::AutogradContext* context,
                                                 const at::Tensor& factor, std::size_t inputs) {
  const at::Tensor dhidden = context->saved_data["dhidden"].toTensor();
  const at::Tensor dweight = context->saved_data["dweight"].toTensor();
  // Without a gradient of its own the step made that of the hidden states for a factor of one.
  const bool direct = context->saved_data["direct"].toBool();
  torch::autograd::variable_list found(inputs);
  found[0] = direct ? dhidden : dhidden.mul(factor);
  if (dweight.defined()) found[1] = dweight.mul(factor);
  return found;
}

}  // namespace omnima::ops
