#include "omnima/optim/schedule_free.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

#include "omnima/core/error.h"
#include "omnima/core/scope.h"
#include "omnima/kernels/cpu/updates.h"
#include "omnima/optim/flat_pass.h"

namespace omnima::optim {
namespace {

// The plain meaning, for devices without a kernel of ours and for OMNIMA_REFERENCE=1.
void update_by_aten(at::Tensor weight, const at::Tensor& grad, at::Tensor base, at::Tensor v,
                    const kernels::ScheduleFreeConstants& c) {
  const at::Tensor g = grad * c.grad_scale;
  v.mul_(c.beta2).addcmul_(g, g, 1.0 - c.beta2);
  const at::Tensor u = g / v.sqrt().div_(c.correction2).add_(c.eps) + weight * c.weight_decay;
  weight.lerp_(base, c.share).add_(u, c.lr * (c.beta1 * (1.0 - c.share) - 1.0));
  base.sub_(u, c.lr);
}

}  // namespace

ScheduleFreeAdamw::ScheduleFreeAdamw(nn::Arena& arena, const OptimizerOptions& options)
    : Optimizer(arena, options),
      base_(zeros_like_arena()),
      exp_avg_sq_(zeros_like_arena()),
      average_(at::zeros({2}, at::kDouble)) {
  core::require<core::ConfigError>(options.beta1 > 0,
                                   "schedule_free_adamw needs beta1 above 0: it is the share of "
                                   "the average in the weights that are trained. Try 0.9.");
  store_->over({base_}, [&](int64_t first, int64_t count, const auto& state) {
    at::Tensor(state[0]).copy_(arena.weights().narrow(0, first, count));
  });
}

void ScheduleFreeAdamw::update(std::int64_t step, double lr, double grad_scale, bool with_shadow) {
  const core::Scope scope("optimizer", 0, (with_shadow ? 30.0 : 28.0) * arena_.size());
  auto* average = average_.data_ptr<double>();
  average[1] = std::max(average[1], lr);
  const double weight = average[1] * average[1];
  average[0] += weight;
  const double share = average[0] > 0 ? weight / average[0] : 0.0;
  const auto real = [](double x) { return static_cast<float>(x); };
  auto* shadow = shadow_of(arena_, with_shadow);
  for (const Span& span : groups_.moving(step)) {
    const kernels::ScheduleFreeConstants c{
        real(lr * span.lr),      real(options_.beta1),
        real(options_.beta2),    real(options_.eps),
        real(span.weight_decay), real(std::sqrt(1.0 - std::pow(options_.beta2, step))),
        real(grad_scale),        real(share)};
    const auto update = [&](int64_t first, int64_t count, const StateStore::Tensors& state) {
      update_slice<2>(arena_, span.part(first, count), state, shadow, update_by_aten,
                      kernels::update_kernels().schedule_free, c);
    };
    store_->over({span.of(base_), span.of(exp_avg_sq_)}, update);
  }
}

Buffers ScheduleFreeAdamw::state() const {
  return {{"base", base_}, {"exp_avg_sq", exp_avg_sq_}, {"average", average_}};
}

at::Tensor ScheduleFreeAdamw::averaged_weights() const {
  at::Tensor averaged = arena_.weights().clone();
  store_->over({base_}, [&](int64_t first, int64_t count, const auto& state) {
    at::Tensor part = averaged.narrow(0, first, count);
    const at::Tensor mean = (part - state[0] * (1.0 - options_.beta1)).div_(options_.beta1);
    // What never moved, as frozen weights, is its own mean, to the bit.
    part.copy_(at::where(part == state[0], part, mean));
  });
  return averaged;
}

}  // namespace omnima::optim
