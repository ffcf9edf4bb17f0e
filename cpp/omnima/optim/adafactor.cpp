#include "omnima/optim/adafactor.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "omnima/core/error.h"
#include "omnima/core/scope.h"

namespace omnima::optim {
namespace {

// The constants of the paper, section 9, with epsilon 1 where torch has it: in the estimate.
constexpr double kDecay = 0.8, kSmallestScale = 1e-3, kLargestChange = 1.0;
constexpr double kEpsilon = std::numeric_limits<float>::epsilon();

double rms(const at::Tensor& x) {
  return x.norm().item<double>() / std::sqrt(static_cast<double>(x.numel()));
}

}  // namespace

Adafactor::Adafactor(nn::Arena& arena, const OptimizerOptions& options)
    : Optimizer(arena, options) {
  core::require<core::ConfigError>(!store_->offloads(),
                                   "adafactor keeps a number for each row and column of a matrix, "
                                   "which is too little to be offloaded: leave offload_optimizer "
                                   "out.");
  Place next;
  for (const auto& parameter : arena.parameters()) {
    places_.push_back(next);
    if (parameter.is_matrix()) {
      next.row += parameter.size() / parameter.sizes.back();
      next.column += parameter.size() / parameter.sizes[parameter.sizes.size() - 2];
    } else {
      next.single += parameter.size();
    }
  }
  const auto where = arena.weights().options();
  row_var_ = at::zeros({next.row}, where);
  col_var_ = at::zeros({next.column}, where);
  variance_ = at::zeros({next.single}, where);
}

at::Tensor Adafactor::variance_of(const Place& place, const at::Tensor& grad, double newest) {
  const at::Tensor squared = grad * grad;
  if (grad.dim() < 2) {
    return variance_.narrow(0, place.single, grad.numel()).lerp_(squared, newest).clone();
  }
  const int64_t rows = grad.numel() / grad.size(-1);
  const int64_t columns = grad.numel() / grad.size(-2);
  auto row_sizes = grad.sizes().vec(), column_sizes = row_sizes;
  row_sizes.back() = 1;
  column_sizes[column_sizes.size() - 2] = 1;
  at::Tensor row = row_var_.narrow(0, place.row, rows).view(row_sizes);
  at::Tensor column = col_var_.narrow(0, place.column, columns).view(column_sizes);
  row.lerp_(squared.mean(-1, /*keepdim=*/true), newest);
  column.lerp_(squared.mean(-2, /*keepdim=*/true), newest);
  return at::matmul(row, column).div_(row.mean(-2, /*keepdim=*/true).clamp_min_(kEpsilon));
}

void Adafactor::update(std::int64_t step, double lr, double grad_scale, bool) {
  const core::Scope scope("optimizer", 0, 20.0 * arena_.size());
  const double newest = std::pow(static_cast<double>(step), -kDecay);
  for (std::size_t i = 0; i < places_.size(); ++i) {
    const auto& parameter = arena_.parameters()[i];
    const auto span = groups_.parameter(i, step);
    if (!span) continue;
    const double rate = lr * span->lr;
    // Without the rows that are frozen: what is left is a matrix of its own.
    auto sizes = parameter.sizes;
    sizes[0] -= groups_.still(i) / (parameter.size() / sizes[0]);
    at::Tensor weight = span->of(arena_.weights()).view(sizes);
    const at::Tensor grad = span->of(arena_.gradients()).view(sizes) * grad_scale;
    const double relative = std::min(rate, 1.0 / std::sqrt(static_cast<double>(step)));
    const double size = std::max(kSmallestScale, rms(weight)) * relative;
    weight.mul_(1.0 - rate * span->weight_decay);
    at::Tensor change = variance_of(places_[i], grad, newest);
    change.clamp_min_(kEpsilon * kEpsilon).rsqrt_().mul_(grad);
    weight.sub_(change, size / std::max(1.0, rms(change) / kLargestChange));
  }
}

Buffers Adafactor::state() const {
  return {{"row_var", row_var_}, {"col_var", col_var_}, {"variance", variance_}};
}

}  // namespace omnima::optim
