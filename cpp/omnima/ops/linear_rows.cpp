#include "omnima/ops/linear_rows.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "omnima/ops/dispatch.h"
#include "omnima/ops/product.h"

namespace omnima::ops {
namespace {

at::Tensor as_rows(const at::Tensor& x) { return x.reshape({-1, x.size(-1)}); }

at::Tensor with_last(const at::Tensor& rows, const at::Tensor& like) {
  auto sizes = like.sizes().vec();
  sizes.back() = rows.size(-1);
  return rows.view(sizes);
}

// A product of `rows` rows with a weight [out, in], or one of the same shapes.
core::Scope product_scope(const char* name, const at::Tensor& x, const at::Tensor& weight) {
  const double out = weight.size(0), in = weight.size(1), rows = x.numel() / x.size(-1);
  return core::Scope(name, 2.0 * rows * in * out,
                     rows * (in + out) * x.element_size() + bytes_of(weight));
}

at::Tensor times_weight(const at::Tensor& rows, const at::Tensor& weight,
                        const at::Tensor& packed) {
  if (!packed.defined()) return product(rows, weight);
  const at::Tensor y = at::empty({rows.size(0), weight.size(1)}, rows.options());
  product_out_packed(y, rows, weight, packed);
  return y;
}

}  // namespace

LinearRows::LinearRows(const Weight& weight, const Weight& bias, const Adapted& adapted)
    : held_(weight.held),
      weight_(weight.compute),
      packed_forward_(weight.packed_forward),
      packed_backward_(weight.packed_backward),
      weight_grad_(weight.grad),
      bias_(bias.compute),
      bias_grad_(bias.grad),
      weight_sizes_(leaf_sizes(weight)),
      bias_sizes_(leaf_sizes(bias)),
      frozen_(weight.frozen()),
      bias_frozen_(bias.frozen()),
      adapted_(adapted) {}

at::Tensor LinearRows::product_rows(const at::Tensor& rows) const {
  const auto scope = product_scope("linear.forward", rows, weight_);
  return times_weight(rows, weight().t(), packed_forward_);
}

at::Tensor LinearRows::through_weight(const at::Tensor& rows) const {
  const auto scope = product_scope("linear.backward", rows, weight_);
  return times_weight(rows, weight(), packed_backward_);
}

at::Tensor LinearRows::forward(const at::Tensor& x, at::Tensor* kept) const {
  const at::Tensor rows = adapted_.enter(as_rows(x));
  at::Tensor y = product_rows(rows);
  if (adapted_.empty()) {
    if (bias_.defined()) y.add_(bias_);
  } else {
    const at::Tensor needed = adapted_.finish(rows, y, bias_);
    if (kept != nullptr) *kept = needed;
  }
  return with_last(y, x);
}

LinearRows::Gradients LinearRows::backward(const at::Tensor& x, const at::Tensor& kept,
                                           const at::Tensor& dy, bool with_input) const {
  if (adapted_.empty()) {
    return {with_input ? input_gradient(dy) : at::Tensor(), parameter_gradients(x, dy)};
  }
  Gradients gradients;
  const at::Tensor rows = x.defined() ? as_rows(x) : x, entered = adapted_.enter(rows);
  std::vector<at::Tensor> of_adapters;
  const at::Tensor dz = adapted_.before_factors(kept, as_rows(dy), bias_, of_adapters);
  at::Tensor dx;
  if (with_input || adapted_.scales_input()) dx = through_weight(dz);
  adapted_.through_products(entered, dz, dx, of_adapters);
  dx = adapted_.leave(rows, dx, of_adapters);
  if (with_input) gradients.input = with_last(dx, dy);
  gradients.parameters.resize(weight_sizes_.size() + bias_sizes_.size());
  gradients.parameters.insert(gradients.parameters.end(), of_adapters.begin(), of_adapters.end());
  return gradients;
}

at::Tensor LinearRows::input_gradient(const at::Tensor& dy) const {
  return with_last(through_weight(as_rows(dy)), dy);
}

std::vector<at::Tensor> LinearRows::parameter_gradients(const at::Tensor& x,
                                                        const at::Tensor& dy) const {
  const at::Tensor rows = as_rows(dy);
  at::Tensor fused, fused_bias;
  if (!frozen_) {
    const auto scope = product_scope("linear.backward", dy, weight_);
    if (!weight_grad_.defined()) {
      fused = at::zeros(weight_.sizes(), rows.options().dtype(at::kFloat));
    }
    add_outer(weight_grad_.defined() ? weight_grad_ : fused, rows, as_rows(x));
  }
  if (!bias_sizes_.empty() && !bias_frozen_) {
    fused_bias = rows.sum(0, /*keepdim=*/false, at::kFloat);
    if (bias_grad_.defined()) {
      bias_grad_.add_(fused_bias);
      fused_bias = at::Tensor();
    }
  }
  auto gradients = leaf_gradients(weight_sizes_, fused);
  for (auto& gradient : leaf_gradients(bias_sizes_, fused_bias)) gradients.push_back(gradient);
  return gradients;
}

}  // namespace omnima::ops
