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

LinearRows::LinearRows(const Weight& weight, const Weight& bias)
    : weight_(weight.compute),
      packed_forward_(weight.packed_forward),
      packed_backward_(weight.packed_backward),
      weight_grad_(weight.grad),
      bias_(bias.compute),
      bias_grad_(bias.grad),
      weight_sizes_(leaf_sizes(weight)),
      bias_sizes_(leaf_sizes(bias)),
      frozen_(weight.frozen()),
      bias_frozen_(bias.frozen()) {}

at::Tensor LinearRows::forward(const at::Tensor& x) const {
  const auto scope = product_scope("linear.forward", x, weight_);
  at::Tensor y = times_weight(as_rows(x), weight_.t(), packed_forward_);
  if (bias_.defined()) y.add_(bias_);
  return with_last(y, x);
}

at::Tensor LinearRows::input_gradient(const at::Tensor& dy) const {
  const auto scope = product_scope("linear.backward", dy, weight_);
  return with_last(times_weight(as_rows(dy), weight_, packed_backward_), dy);
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
