// GPTQ (Frantar et al. 2022): columns are rounded one after the other, and those that are still to
// come make up for the error as far as the second moments H of the inputs allow.
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_cholesky_ex.h>
#include <ATen/ops/linalg_solve_triangular.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

#include "omnima/core/error.h"
#include "omnima/ops/product.h"
#include "omnima/quant/methods/methods.h"
#include "omnima/quant/methods/refit.h"

namespace omnima::quant {
namespace {

constexpr double kDamping = 0.01;  // of the mean of the diagonal, added to it (section 3.3, step 3)
constexpr int kDampings = 6;       // each ten times the one before
constexpr double kFollowed = 0.25;
constexpr std::int64_t kColumnsAtOnce = 256;  // of a factor's inverse
constexpr std::int64_t kBlock = 64;  // columns whose errors are gathered (section 3.3, step 2)

// The upper Cholesky factor U of H^-1 = U^T U, float32. By the factor of H with its rows and
// columns in reverse: J H J = L L^T, so H = R R^T with R = J L J upper triangular, and
// U = R^-1 = J L^-1 J. Few matrices of this size are there at a time.
at::Tensor inverse_factor(const at::Tensor& moments) {
  const std::int64_t size = moments.size(0);
  const double mean = moments.diagonal().to(at::kDouble).mean().item<double>();
  double damping = kDamping * mean;
  for (int i = 0; i < kDampings; ++i, damping *= 10) {
    at::Tensor damped = moments.flip({0, 1}).to(at::kDouble);
    damped.diagonal().add_(damping);
    const auto [lower, info] = at::linalg_cholesky_ex(damped);
    damped.reset();
    if (info.item<int>() != 0) continue;
    const at::Tensor u = at::empty({size, size}, at::kFloat);
    for (std::int64_t begin = 0; begin < size; begin += kColumnsAtOnce) {
      const std::int64_t count = std::min(kColumnsAtOnce, size - begin);
      const at::Tensor unit = at::zeros({size, count}, at::kDouble);
      unit.diagonal(-begin).fill_(1);
      const at::Tensor columns = at::linalg_solve_triangular(lower, unit, /*upper=*/false);
      u.narrow(1, size - begin - count, count).copy_(columns.flip({0, 1}));
    }
    return u;
  }
  throw core::Error(
      "The inputs of a matrix have second moments that no damping makes positive definite: is the "
      "model damaged?");
}

// Rounds the columns begin to end of some rows of w, in order, and moves their errors to the
// columns up to `end`; what is left for those behind is in `errors` [rows, end - begin].
struct Columns {
  Levels& made;
  const at::Tensor &w, &u;
  const std::int64_t* order;  // which column of the matrix stands where

  void round(std::int64_t begin, std::int64_t end, const at::Tensor& errors) const {
    const std::int64_t inputs = w.size(1), groups = made.groups(), group = made.grid().group;
    const float *scales = made.scales.const_data_ptr<float>(),
                *least = made.least.const_data_ptr<float>(), *factor = u.const_data_ptr<float>();
    auto* levels = made.levels.data_ptr<std::uint8_t>();
    over_rows(made.rows(), [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t row = first; row < last; ++row) {
        float* numbers = w.data_ptr<float>() + row * inputs;
        float* error = errors.data_ptr<float>() + row * (end - begin);
        for (std::int64_t i = begin; i < end; ++i) {
          const std::int64_t g = row * groups + order[i] / group;
          const std::uint8_t level = made.grid().nearest(numbers[i], scales[g], least[g]);
          levels[row * inputs + order[i]] = level;
          const float made_of = scales[g] * made.grid().values[level] + least[g];
          const float* line = factor + i * inputs;
          const float share = (numbers[i] - made_of) / line[i];  // equation 2
          for (std::int64_t k = i + 1; k < end; ++k) numbers[k] -= share * line[k];
          error[i - begin] = share;
        }
      }
    });
  }
};

// The weights that would give the outputs of before with the inputs of now, as nearly as the
// moments allow: the least |W x' - V x|^2 is V = W + W D H^-1 for the drift D. This is the aim of
// GPTAQ (Li et al. 2025), which follows it column by column. Only a share of the way is gone: the
// drift of a text of this size is half chance.
at::Tensor followed(const at::Tensor& weight, const at::Tensor& drift, const at::Tensor& order,
                    const at::Tensor& u) {
  const at::Tensor missed = ops::product(weight, drift).index_select(1, order);
  const at::Tensor moved = ops::product(ops::product(missed, u.t()), u);
  return weight.add(moved.index_select(1, order.argsort()), kFollowed);
}

Levels quantize(const Format& format, const at::Tensor& weight, const TextMoments& text) {
  const at::Tensor& moments = text.moments;
  if (!moments.defined()) return nearest_levels(format, weight, {});
  const std::int64_t inputs = weight.size(1);
  // Scales of all groups first: then columns may come in any order. The columns that matter most
  // come first, while many are left to make up for them.
  const at::Tensor order = moments.diagonal().argsort(/*stable=*/true, 0, /*descending=*/true);
  const at::Tensor u = inverse_factor(moments.index_select(0, order).index_select(1, order));
  const at::Tensor aim = text.drift.defined() ? followed(weight, text.drift, order, u) : weight;
  Levels made = nearest_levels(format, aim, moments.diagonal().contiguous());
  const at::Tensor w = aim.index_select(1, order).contiguous();
  const Columns columns{made, w, u, order.const_data_ptr<std::int64_t>()};
  for (std::int64_t begin = 0; begin < inputs; begin += kBlock) {
    const std::int64_t end = std::min(inputs, begin + kBlock);
    const at::Tensor errors = at::empty({made.rows(), end - begin}, at::kFloat);
    columns.round(begin, end, errors);
    if (end == inputs) break;
    const at::Tensor behind = u.narrow(0, begin, end - begin).narrow(1, end, inputs - end);
    w.narrow(1, end, inputs - end).sub_(ops::product(errors, behind.contiguous()));
  }
  refit_scales(made, aim, moments);
  return made;
}

}  // namespace

const Method kGptq{"gptq", true, true, quantize};

}  // namespace omnima::quant
