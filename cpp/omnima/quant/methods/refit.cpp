#include "omnima/quant/methods/refit.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/linalg_solve_ex.h>
#include <ATen/ops/where.h>

#include "omnima/ops/product.h"

namespace omnima::quant {
namespace {

constexpr std::int64_t kRowsAtOnce = 256;  // a row's equations are few hundred thousand bytes
constexpr double kDamping = 1e-4;          // of each equation's own coefficient

// A row of a matrix is the sum over its groups g of scale_g v_g + least_g 1_g, where v_g holds the
// values of the group's levels. The equations for all scales and least numbers of some rows:
// coefficients float64 [rows, unknowns, unknowns], of the quadratic form of the moments.
class Equations {
 public:
  Equations(const at::Tensor& values, const at::Tensor& moments, std::int64_t groups,
            bool has_least)
      : values_(values), moments_(moments), groups_(groups), has_least_(has_least) {
    const std::int64_t rows = values.size(0), unknowns = has_least ? 2 * groups : groups;
    coefficients_ = at::empty({rows, unknowns, unknowns}, at::kDouble);
    const std::int64_t size = values.size(1) / groups;
    for (std::int64_t h = 0; h < groups; ++h) {
      // [rows, inputs]: what the values of group h meet.
      const at::Tensor met = ops::product(values.narrow(1, h * size, size).contiguous(),
                                          moments.narrow(0, h * size, size).contiguous());
      coefficients_.select(2, h).narrow(1, 0, groups).copy_(by_group(met * values));
      if (!has_least) continue;
      const at::Tensor sums = by_group(met);
      coefficients_.select(2, h).narrow(1, groups, groups).copy_(sums);
      coefficients_.select(1, h).narrow(1, groups, groups).copy_(sums);
      const at::Tensor ones = moments.narrow(0, h * size, size).sum(0, /*keepdim=*/true);
      coefficients_.select(2, groups + h).narrow(1, groups, groups).copy_(by_group(ones));
    }
    coefficients_.diagonal(0, 1, 2).mul_(1 + kDamping);
  }

  // How far each unknown should move, [rows, unknowns], where the rows miss by `error`.
  at::Tensor solve(const at::Tensor& error) const {
    const at::Tensor missed = ops::product(error, moments_);
    at::Tensor sums = by_group(missed * values_);
    if (has_least_) sums = at::cat({sums, by_group(missed)}, 1);
    return std::get<0>(at::linalg_solve_ex(coefficients_, sums.to(at::kDouble).unsqueeze(2)))
        .squeeze(2)
        .to(at::kFloat);
  }

 private:
  at::Tensor by_group(const at::Tensor& x) const {
    return x.reshape({x.size(0), groups_, -1}).sum(2);
  }

  at::Tensor values_, moments_, coefficients_;
  std::int64_t groups_;
  bool has_least_;
};

// What the errors of rows do to the outputs: [rows].
at::Tensor output_errors(const at::Tensor& error, const at::Tensor& moments) {
  return (ops::product(error, moments) * error).sum(1);
}

at::Tensor values_of(const Levels& made) {
  const at::Tensor values = at::empty({made.rows(), made.inputs()}, at::kFloat);
  const auto* levels = made.levels.const_data_ptr<std::uint8_t>();
  float* to = values.data_ptr<float>();
  for (std::int64_t i = 0; i < values.numel(); ++i) to[i] = made.grid().values[levels[i]];
  return values;
}

void settle(Levels& made) {
  const std::int64_t in_block = made.format->numbers / made.grid().group;
  float *scales = made.scales.data_ptr<float>(), *least = made.least.data_ptr<float>();
  for (std::int64_t i = 0; i < made.scales.numel(); i += in_block) {
    made.grid().settle(scales + i, least + i, in_block);
  }
}

void refit(Levels& made, const at::Tensor& weight, const at::Tensor& moments) {
  const at::Tensor before = weight - made.numbers();
  const Equations equations(values_of(made), moments, made.groups(), made.grid().has_least);
  const at::Tensor moves = equations.solve(before);
  Levels moved = made;
  moved.scales = made.scales + moves.narrow(1, 0, made.groups());
  moved.least = made.least.clone();
  if (made.grid().has_least) moved.least += moves.narrow(1, made.groups(), made.groups());
  settle(moved);
  const at::Tensor after = output_errors(weight - moved.numbers(), moments);
  // A row with a number that is not finite is nearer to nothing.
  const at::Tensor nearer = (after < output_errors(before, moments)).unsqueeze(1);
  made.scales.copy_(at::where(nearer, moved.scales, made.scales));
  made.least.copy_(at::where(nearer, moved.least, made.least));
}

}  // namespace

void refit_scales(Levels& made, const at::Tensor& weight, const at::Tensor& moments) {
  for (std::int64_t row = 0; row < made.rows(); row += kRowsAtOnce) {
    const std::int64_t count = std::min(kRowsAtOnce, made.rows() - row);
    Levels some = made;
    some.scales = made.scales.narrow(0, row, count);
    some.least = made.least.narrow(0, row, count);
    some.levels = made.levels.narrow(0, row, count);
    refit(some, weight.narrow(0, row, count).contiguous(), moments);
  }
}

}  // namespace omnima::quant
