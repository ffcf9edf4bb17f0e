#include "omnima/optim/adamw.h"

#include <ATen/TensorOperators.h>

#include <cmath>

#include "omnima/core/scope.h"
#include "omnima/optim/flat_pass.h"

namespace omnima::optim {
namespace {

// The plain meaning: on devices without a kernel of ours, or where OMNIMA_REFERENCE=1 asks for it.
void update_by_aten(at::Tensor weight, const at::Tensor& grad, at::Tensor m, at::Tensor v,
                    const kernels::AdamwConstants& c) {
  const at::Tensor g = grad * c.grad_scale;
  m.mul_(c.beta1).add_(g, 1.0 - c.beta1);
  v.mul_(c.beta2).addcmul_(g, g, 1.0 - c.beta2);
  weight.mul_(1.0 - c.lr * c.weight_decay);
  weight.addcdiv_(m, v.sqrt().div_(c.correction2).add_(c.eps), -c.lr / c.correction1);
}

}  // namespace

kernels::AdamwConstants adamw_constants(const OptimizerOptions& options, std::int64_t step,
                                        double grad_scale) {
  const auto real = [](double x) { return static_cast<float>(x); };
  return {0.0f,
          real(options.beta1),
          real(options.beta2),
          real(options.eps),
          0.0f,
          real(1.0 - std::pow(options.beta1, step)),
          real(std::sqrt(1.0 - std::pow(options.beta2, step))),
          real(grad_scale)};
}

void adamw_span(nn::Arena& arena, const Span& span, const at::Tensor& exp_avg,
                const at::Tensor& exp_avg_sq, kernels::bfloat16* shadow, double lr,
                kernels::AdamwConstants constants) {
  constants.lr = static_cast<float>(lr * span.lr);
  constants.weight_decay = static_cast<float>(span.weight_decay);
  update_slice<2>(arena, span, {exp_avg, exp_avg_sq}, shadow, update_by_aten,
                  kernels::optimizer_kernels().adamw, constants);
}

Adamw::Adamw(nn::Arena& arena, const OptimizerOptions& options)
    : Optimizer(arena, options), exp_avg_(zeros_like_arena()), exp_avg_sq_(zeros_like_arena()) {}

void Adamw::update(std::int64_t step, double lr, double grad_scale, bool with_shadow) {
  // Weight and moments read and written, the gradient read.
  const core::Scope scope("optimizer", 0, (with_shadow ? 30.0 : 28.0) * arena_.size());
  const auto constants = adamw_constants(options_, step, grad_scale);
  auto* shadow = shadow_of(arena_, with_shadow);
  for (const Span& span : groups_.moving(step)) {
    store_->over({span.of(exp_avg_), span.of(exp_avg_sq_)}, [&](int64_t first, int64_t count,
                                                                const StateStore::Tensors& parts) {
      adamw_span(arena_, span.part(first, count), parts[0], parts[1], shadow, lr, constants);
    });
  }
}

Buffers Adamw::state() const { return {{"exp_avg", exp_avg_}, {"exp_avg_sq", exp_avg_sq_}}; }

}  // namespace omnima::optim
