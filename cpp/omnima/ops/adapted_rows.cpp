#include "omnima/ops/adapted_rows.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include "omnima/kernels/cpu/factors.h"
#include "omnima/ops/dispatch.h"
#include "omnima/ops/dropout.h"
#include "omnima/ops/product.h"
#include "omnima/ops/row_parts.h"

namespace omnima::ops {

namespace {

// y [rows, columns], whose rows may lie apart, times a factor for each column.
void scale_columns(const at::Tensor& y, const at::Tensor& factor) {
  by_dtype(y, "adapted", [&]<class T>(T*) {
    at::parallel_for(0, y.size(0), row_grain(y.size(1)), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        kernels::factor_kernels<T>().apply(factor.const_data_ptr<float>(),
                                           data<T>(y) + row * y.stride(0), y.size(1));
      }
    });
  });
}

// dz = dy times the factor of each column, all [rows, columns] with rows apart; sums over rows of
// dy times kept, and of dy.
AdaptedRows::ColumnSums scale_gradient(const at::Tensor& dy, const at::Tensor& kept,
                                       const at::Tensor& factor, const at::Tensor& dz) {
  if (runs_plain(dy)) {
    at::Tensor(dz).copy_(dy.mul(factor));
    const at::Tensor wide = dy.to(at::kFloat);
    return {wide.mul(kept).sum(0), wide.sum(0)};
  }
  const int64_t rows = dy.size(0), columns = dy.size(1);
  const at::Tensor partial = at::zeros({2, parts_of(rows), columns}, factor.options());
  by_dtype(dy, "adapted", [&]<class T>(T*) {
    in_parts(rows, [&](int64_t part, int64_t begin, int64_t end) {
      float* products = partial[0][part].data_ptr<float>();
      float* totals = partial[1][part].data_ptr<float>();
      for (int64_t row = begin; row < end; ++row) {
        kernels::factor_kernels<T>().backward(
            {factor.const_data_ptr<float>(), data<T>(kept) + row * kept.stride(0),
             data<T>(dy) + row * dy.stride(0), data<T>(dz) + row * dz.stride(0), products, totals},
            columns);
      }
    });
  });
  return {partial[0].sum(0), partial[1].sum(0)};
}

}  // namespace

std::vector<at::Tensor> Adapted::leaves() const {
  std::vector<at::Tensor> all;
  const auto add = [&](const Weight& weight) {
    all.insert(all.end(), weight.leaves.begin(), weight.leaves.end());
  };
  for (const auto& output : outputs) add(output.factor);
  for (const auto& each : biases) add(each.bias);
  for (const auto& product : products) {
    add(product.down);
    for (const auto& part : product.parts) {
      add(part.up);
      add(part.inner);
      add(part.outer);
    }
  }
  add(input);
  return all;
}

AdaptedRows::Factor::Factor(const Weight& weight)
    : values(weight.compute),
      grad(weight.grad),
      sizes(leaf_sizes(weight)),
      frozen(weight.leaves.empty() || weight.frozen()) {}

void AdaptedRows::Factor::give(const at::Tensor& gradient,
                               std::vector<at::Tensor>& gradients) const {
  at::Tensor fused = frozen ? at::Tensor() : gradient;
  if (!frozen && grad.defined()) {
    grad.add_(fused);
    fused = at::Tensor();
  }
  for (auto& each : leaf_gradients(sizes, fused)) gradients.push_back(each);
}

void AdaptedRows::Factor::give_outer(const at::Tensor& dy, const at::Tensor& x,
                                     std::vector<at::Tensor>& gradients) const {
  at::Tensor fused;
  if (!frozen) {
    if (!grad.defined()) fused = at::zeros(values.sizes(), dy.options().dtype(at::kFloat));
    add_outer(grad.defined() ? grad : fused, dy, x);
  }
  for (auto& each : leaf_gradients(sizes, fused)) gradients.push_back(each);
}

AdaptedRows::AdaptedRows(const Adapted& adapted) : input_(adapted.input) {
  for (const auto& product : adapted.products) {
    Product own{Factor(product.down), {}, product.dropout, product.seed};
    for (const auto& part : product.parts) {
      own.parts.push_back({part.first, part.rows, part.begin, part.rank, part.scale,
                           Factor(part.up), Factor(part.inner), Factor(part.outer)});
    }
    products_.push_back(std::move(own));
  }
  for (const auto& output : adapted.outputs) {
    outputs_.push_back({output.first, output.rows, Factor(output.factor), output.with_bias});
  }
  for (const auto& each : adapted.biases) {
    biases_.push_back({each.first, each.rows, Factor(each.bias)});
  }
}

at::Tensor AdaptedRows::enter(const at::Tensor& x) const {
  return scales_input() ? x.mul(input_.values.to(x.scalar_type())) : x;
}

bool AdaptedRows::keeps_product() const {
  for (const auto& output : outputs_) {
    if (!output.factor.frozen && output.factor.values.eq(0).any().item<bool>()) return true;
  }
  return false;
}

void AdaptedRows::scale_outputs(const at::Tensor& y, bool with_bias) const {
  for (const auto& output : outputs_) {
    if (output.with_bias != with_bias) continue;
    const at::Tensor part = y.narrow(1, output.first, output.rows);
    if (runs_plain(y)) {
      part.mul_(output.factor.values);
    } else {
      scale_columns(part, output.factor.values);
    }
  }
}

at::Tensor AdaptedRows::Part::enter(const at::Tensor& low) const {
  const at::Tensor own = low.narrow(1, begin, rank);
  if (inner.values.defined()) return own.mul(inner.values.mul(scale)).to(low.scalar_type());
  return scale != 1 ? own.mul(scale) : own;
}

void AdaptedRows::add_product(const Product& product, const at::Tensor& x,
                              const at::Tensor& y) const {
  const core::Scope scope("adapter.forward",
                          2.0 * product.down.values.size(0) * (x.numel() + y.numel()),
                          bytes_of(x) + 2 * bytes_of(y));
  const at::Tensor read = dropout(x, product.dropout, product.seed);
  const at::Tensor low = ops::product(read, product.down.values.t());  // [rows, ranks]
  for (const auto& part : product.parts) {
    const at::Tensor own = part.enter(low), out = y.narrow(1, part.first, part.rows);
    if (part.outer.values.defined()) {
      at::Tensor(out).addcmul_(ops::product(own, part.up.values.t()),
                               part.outer.values.to(y.scalar_type()));
    } else {
      add_thin_product(out, own, part.up.values.t());
    }
  }
}

at::Tensor AdaptedRows::bias_for(const at::Tensor& y, const at::Tensor& bias) const {
  if (biases_.empty()) return bias;
  const at::Tensor all = bias.defined() ? bias.clone() : at::zeros({y.size(1)}, y.options());
  for (const auto& each : biases_) all.narrow(0, each.first, each.rows).copy_(each.values.values);
  return all;
}

at::Tensor AdaptedRows::finish(const at::Tensor& x, const at::Tensor& y,
                               const at::Tensor& bias) const {
  for (const auto& product : products_) add_product(product, x, y);
  const at::Tensor kept = keeps_product() ? y.clone() : y;
  scale_outputs(y, false);
  if (const at::Tensor added = bias_for(y, bias); added.defined()) at::Tensor(y).add_(added);
  scale_outputs(y, true);
  return outputs_.empty() ? at::Tensor() : kept;
}

// The gradient of an output's factor from the sums of dy times what was kept, and of dy.
at::Tensor AdaptedRows::factor_gradient(const Output& output, const ColumnSums& sums,
                                        const at::Tensor& bias) const {
  const at::Tensor own = bias.defined() ? bias.narrow(0, output.first, output.rows) : at::Tensor();
  if (keeps_product()) {
    return output.with_bias && own.defined() ? sums.products.add(sums.totals.mul(own))
                                             : sums.products;
  }
  const at::Tensor of_result =
      output.with_bias || !own.defined() ? sums.products : sums.products.sub(sums.totals.mul(own));
  return of_result.div(output.factor.values);
}

at::Tensor AdaptedRows::before_factors(const at::Tensor& kept, const at::Tensor& dy,
                                       const at::Tensor& bias,
                                       std::vector<at::Tensor>& gradients) const {
  for (const auto& each : biases_) {
    const at::Tensor own = dy.narrow(1, each.first, each.rows);
    each.values.give(each.values.frozen ? at::Tensor() : own.sum(0, false, at::kFloat), gradients);
  }
  if (outputs_.empty()) return dy;
  const core::Scope scope("adapter.backward", 0, 3 * bytes_of(dy));
  const at::Tensor from = dy.contiguous();
  int64_t scaled = 0;
  for (const auto& output : outputs_) scaled += output.rows;
  const at::Tensor dz = scaled == dy.size(1) ? at::empty_like(from) : from.clone();
  for (const auto& output : outputs_) {
    const auto columns = [&](const at::Tensor& x) {
      return x.narrow(1, output.first, output.rows);
    };
    const ColumnSums sums =
        scale_gradient(columns(from), columns(kept), output.factor.values, columns(dz));
    output.factor.give(factor_gradient(output, sums, bias), gradients);
  }
  return dz;
}

void AdaptedRows::through(const Part& part, const at::Tensor& low, const at::Tensor& dz,
                          const at::Tensor& dlow, std::vector<at::Tensor>& gradients) const {
  const auto sum_of = [](const Factor& factor, const at::Tensor& a, const at::Tensor& b) {
    return factor.frozen ? at::Tensor() : a.to(at::kFloat).mul(b).sum(0);
  };
  const at::Tensor own = part.enter(low);
  const bool scaled = part.outer.values.defined();
  const at::Tensor of_outputs = dz.narrow(1, part.first, part.rows);
  const at::Tensor dy =
      scaled ? of_outputs.mul(part.outer.values.to(dz.scalar_type())) : of_outputs;
  part.up.give_outer(dy, own, gradients);
  const at::Tensor back = ops::product(dy, part.up.values);
  const at::Tensor unscaled = low.narrow(1, part.begin, part.rank);
  at::Tensor back_to_low = part.scale != 1 ? back.mul(part.scale) : back;
  if (part.inner.values.defined()) {
    part.inner.give(sum_of(part.inner, back_to_low, unscaled), gradients);
    back_to_low = back_to_low.mul(part.inner.values);
  }
  if (scaled) {
    const at::Tensor made =
        part.outer.frozen ? at::Tensor() : ops::product(own, part.up.values.t());
    part.outer.give(sum_of(part.outer, of_outputs, made), gradients);
  }
  dlow.narrow(1, part.begin, part.rank).add_(back_to_low);
}

void AdaptedRows::through(const Product& product, const at::Tensor& x, const at::Tensor& dz,
                          const at::Tensor& dx, std::vector<at::Tensor>& gradients) const {
  const core::Scope scope("adapter.backward",
                          2.0 * product.down.values.size(0) * (3 * x.numel() + 2 * dz.numel()),
                          3 * bytes_of(x) + 2 * bytes_of(dz));
  const at::Tensor read = dropout(x, product.dropout, product.seed);
  const at::Tensor low = ops::product(read, product.down.values.t());
  const at::Tensor dlow = at::zeros_like(low);
  std::vector<at::Tensor> of_parts;
  for (const auto& part : product.parts) through(part, low, dz, dlow, of_parts);
  product.down.give_outer(dlow, read, gradients);
  gradients.insert(gradients.end(), of_parts.begin(), of_parts.end());
  if (!dx.defined()) return;
  if (product.dropout == 0) {
    add_thin_product(dx, dlow, product.down.values);
  } else {
    at::Tensor(dx).add_(
        dropout(ops::product(dlow, product.down.values), product.dropout, product.seed));
  }
}

void AdaptedRows::through_products(const at::Tensor& x, const at::Tensor& dz, const at::Tensor& dx,
                                   std::vector<at::Tensor>& gradients) const {
  for (const auto& product : products_) through(product, x, dz, dx, gradients);
}

at::Tensor AdaptedRows::leave(const at::Tensor& x, const at::Tensor& dx,
                              std::vector<at::Tensor>& gradients) const {
  if (!scales_input()) return dx;
  if (!input_.frozen) input_.give(x.to(at::kFloat).mul(dx).sum(0), gradients);
  if (input_.frozen) input_.give({}, gradients);
  return at::Tensor(dx).mul_(input_.values.to(dx.scalar_type()));
}

}  // namespace omnima::ops
