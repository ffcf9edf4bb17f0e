#include "omnima/optim/sgd.h"

#include <ATen/TensorOperators.h>

#include "omnima/core/scope.h"
#include "omnima/kernels/cpu/updates.h"
#include "omnima/optim/flat_pass.h"

namespace omnima::optim {
namespace {

// The plain meaning, for devices without a kernel of ours and for OMNIMA_REFERENCE=1.
void update_by_aten(at::Tensor weight, const at::Tensor& grad, at::Tensor momentum,
                    const kernels::SgdConstants& c) {
  const at::Tensor g = grad * c.grad_scale + weight * c.weight_decay;
  momentum.mul_(c.momentum).add_(g);
  weight.sub_(c.nesterov ? g + momentum * c.momentum : momentum, c.lr);
}

}  // namespace

void Sgd::update(std::int64_t step, double lr, double grad_scale, bool with_shadow) {
  const core::Scope scope("optimizer", 0, (with_shadow ? 22.0 : 20.0) * arena_.size());
  auto* shadow = shadow_of(arena_, with_shadow);
  for (const Span& span : groups_.moving(step)) {
    const kernels::SgdConstants c{
        static_cast<float>(lr * span.lr), static_cast<float>(options_.momentum),
        static_cast<float>(span.weight_decay), static_cast<float>(grad_scale), options_.nesterov};
    store_->over({span.of(momentum_)}, [&](int64_t first, int64_t count, const auto& state) {
      update_slice<1>(arena_, span.part(first, count), state, shadow, update_by_aten,
                      kernels::update_kernels().sgd, c);
    });
  }
}

}  // namespace omnima::optim
