#include "omnima/optim/muon.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "omnima/core/error.h"
#include "omnima/core/scope.h"
#include "omnima/ops/product.h"
#include "omnima/optim/adamw.h"
#include "omnima/optim/flat_pass.h"

namespace omnima::optim {
namespace {

// Jordan et al.: chosen for the steepest rise of small singular values.
constexpr double kA = 3.4445, kB = -4.7750, kC = 2.0315;
constexpr int kIterations = 5;
constexpr double kEpsilon = 1e-7;
constexpr double kRmsOfAdamw = 0.2;  // Liu et al.

// Tables that are looked up, and the output projection, are no maps between hidden spaces.
constexpr const char* kTables[] = {"*embed*", "*lm_head*", "*relative_bias*"};

bool is_hidden(const nn::Parameter& parameter) {
  return parameter.sizes.size() == 2 &&
         std::none_of(std::begin(kTables), std::end(kTables),
                      [&](const char* pattern) { return matches(pattern, parameter.name); });
}

}  // namespace

at::Tensor orthogonalized(const at::Tensor& matrix, at::ScalarType type) {
  const bool tall = matrix.size(0) > matrix.size(1);
  at::Tensor x = (matrix / matrix.norm().clamp_min(kEpsilon)).to(type);
  if (tall) x = x.t();
  for (int i = 0; i < kIterations; ++i) {
    const at::Tensor gram = ops::symmetric_product(x, x.t(), type);
    // Sums in float32: of all roundings to 16 bits that of the square would cost the most.
    at::Tensor factor = ops::symmetric_product(gram, gram, at::kFloat).mul_(kC).add_(gram, kB);
    factor.diagonal().add_(kA);
    x = ops::product(factor.to(type), x);
  }
  return tall ? x.t() : x;
}

Muon::Muon(nn::Arena& arena, const OptimizerOptions& options)
    : Optimizer(arena, options), exp_avg_(zeros_like_arena()) {
  int64_t others = 0;
  for (std::size_t i = 0; i < arena.parameters().size(); ++i) {
    const auto& parameter = arena.parameters()[i];
    core::require<core::ConfigError>(
        !is_hidden(parameter) || groups_.still(i) % parameter.size() == 0,
        "muon turns a matrix as a whole, so no rows of ", parameter.name,
        " can be frozen: freeze all of it, or take another optimizer.");
    place_.push_back(is_hidden(parameter) ? -1 : others);
    if (place_.back() >= 0) others += parameter.size();
  }
  exp_avg_sq_ = store_->zeros(others, at::kFloat);
}

void Muon::turn(const nn::Parameter& parameter, const Span& span, at::Tensor mean, double lr,
                double grad_scale) {
  const auto as_matrix = [&](const at::Tensor& x) { return span.of(x).view(parameter.sizes); };
  at::Tensor weight = as_matrix(arena_.weights());
  const at::Tensor grad = as_matrix(arena_.gradients()) * grad_scale;
  mean.lerp_(grad, 1.0 - options_.momentum);
  const at::Tensor ahead = options_.nesterov ? grad.lerp(mean, options_.momentum) : mean;
  const at::Tensor direction =
      orthogonalized(ahead, options_.narrow ? at::kBFloat16 : at::kFloat).to(at::kFloat);
  const auto longest = static_cast<double>(std::max(parameter.sizes[0], parameter.sizes[1]));
  weight.mul_(1.0 - lr * span.weight_decay);
  weight.sub_(direction, lr * kRmsOfAdamw * std::sqrt(longest));
}

void Muon::update(std::int64_t step, double lr, double grad_scale, bool) {
  const core::Scope scope("optimizer", 0, 28.0 * arena_.size());
  const auto constants = adamw_constants(options_, step, grad_scale);
  shadow_of(arena_, false);
  std::vector<std::size_t> hidden;
  for (std::size_t i = 0; i < place_.size(); ++i) {
    const auto span = groups_.parameter(i, step);
    if (!span) continue;
    if (place_[i] < 0) {
      hidden.push_back(i);
      continue;
    }
    store_->over(
        {span->of(exp_avg_), exp_avg_sq_.narrow(0, place_[i] + groups_.still(i), span->count())},
        [&](int64_t first, int64_t count, const StateStore::Tensors& parts) {
          adamw_span(arena_, span->part(first, count), parts[0], parts[1], nullptr, lr, constants);
        });
  }
  const auto turn_some = [&](int64_t first, int64_t last) {
    const at::NoGradGuard no_grad;
    for (int64_t i = first; i < last; ++i) {
      const auto& parameter = arena_.parameters()[hidden[i]];
      const Span span = *groups_.parameter(hidden[i], step);
      store_->over(
          {span.of(exp_avg_)},
          [&](int64_t, int64_t, const StateStore::Tensors& parts) {
            turn(parameter, span, parts[0].view(parameter.sizes), lr * span.lr, grad_scale);
          },
          /*whole=*/true);
    }
  };
  // A matrix a thread wastes less than one matrix on all of them.
  const auto count = static_cast<int64_t>(hidden.size());
  if (arena_.weights().is_cpu() && !store_->offloads() && count >= 4 * at::get_num_threads()) {
    at::parallel_for(0, count, 1, turn_some);
  } else {
    turn_some(0, count);
  }
}

Buffers Muon::state() const { return {{"exp_avg", exp_avg_}, {"exp_avg_sq", exp_avg_sq_}}; }

}  // namespace omnima::optim
