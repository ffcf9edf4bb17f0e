#include "omnima/optim/lion.h"

#include <ATen/TensorOperators.h>

#include "omnima/core/scope.h"
#include "omnima/kernels/cpu/updates.h"
#include "omnima/optim/flat_pass.h"

namespace omnima::optim {
namespace {

// The plain meaning, for devices without a kernel of ours and for OMNIMA_REFERENCE=1.
void update_by_aten(at::Tensor weight, const at::Tensor& grad, at::Tensor exp_avg,
                    const kernels::LionConstants& c) {
  const at::Tensor g = grad * c.grad_scale;
  const at::Tensor direction = (exp_avg * c.beta1 + g * (1.0 - c.beta1)).sign_();
  weight.mul_(1.0 - c.lr * c.weight_decay).sub_(direction, c.lr);
  exp_avg.mul_(c.beta2).add_(g, 1.0 - c.beta2);
}

}  // namespace

void Lion::update(std::int64_t step, double lr, double grad_scale, bool with_shadow) {
  const core::Scope scope("optimizer", 0, (with_shadow ? 22.0 : 20.0) * arena_.size());
  auto* shadow = shadow_of(arena_, with_shadow);
  for (const Span& span : groups_.moving(step)) {
    const kernels::LionConstants c{
        static_cast<float>(lr * span.lr), static_cast<float>(options_.beta1),
        static_cast<float>(options_.beta2), static_cast<float>(span.weight_decay),
        static_cast<float>(grad_scale)};
    store_->over({span.of(exp_avg_)}, [&](int64_t first, int64_t count, const auto& state) {
      update_slice<1>(arena_, span.part(first, count), state, shadow, update_by_aten,
                      kernels::update_kernels().lion, c);
    });
  }
}

}  // namespace omnima::optim
