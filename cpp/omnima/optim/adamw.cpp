#include "omnima/kernels/cpu/adamw.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "omnima/core/field.h"
#include "omnima/core/scope.h"
#include "omnima/ops/weight.h"
#include "omnima/optim/adamw.h"

namespace omnima::optim {
namespace {

constexpr int64_t kGrain = 1 << 16;

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

Adamw::Adamw(nn::Arena& arena, const AdamwOptions& options)
    : arena_(arena),
      options_(options),
      exp_avg_(at::zeros({arena.size()}, arena.weights().options())),
      exp_avg_sq_(at::zeros({arena.size()}, arena.weights().options())) {
  core::check_field({"beta1", 0.9, "decay of the first moment", 0, 0.9999999}, options.beta1);
  core::check_field({"beta2", 0.95, "decay of the second moment", 0, 0.9999999}, options.beta2);
  core::check_field({"eps", 1e-8, "added to the root of the second moment", 1e-20, 1}, options.eps);
  core::check_field({"weight_decay", 0.1, "decay of matrices", 0, 10}, options.weight_decay);
}

void Adamw::update(std::int64_t step, double lr, double grad_scale, bool with_shadow) {
  // Weight and moments read and written, the gradient read.
  const core::Scope scope("optimizer", 0, (with_shadow ? 30.0 : 28.0) * arena_.size());
  const auto real = [](double x) { return static_cast<float>(x); };
  kernels::AdamwConstants c{real(lr),
                            real(options_.beta1),
                            real(options_.beta2),
                            real(options_.eps),
                            0.0f,
                            real(1.0 - std::pow(options_.beta1, step)),
                            real(std::sqrt(1.0 - std::pow(options_.beta2, step))),
                            real(grad_scale)};
  const at::Tensor &weights = arena_.weights(), &gradients = arena_.gradients();
  // The kernel writes through pointers, so a bfloat16 copy made earlier would not be seen as old.
  if (!with_shadow) weights.unsafeGetTensorImpl()->bump_version();
  const int64_t decayed = arena_.decayed();
  for (const bool matrices : {true, false}) {
    const int64_t first = matrices ? 0 : decayed, last = matrices ? decayed : arena_.size();
    c.weight_decay = matrices ? real(options_.weight_decay) : 0.0f;
    if (!weights.is_cpu() || ops::reference_mode()) {
      const auto part = [&](const at::Tensor& x) { return x.narrow(0, first, last - first); };
      update_by_aten(part(weights), part(gradients), part(exp_avg_), part(exp_avg_sq_), c);
      continue;
    }
    auto* shadow =
        with_shadow ? static_cast<kernels::bfloat16*>(arena_.shadow().data_ptr()) : nullptr;
    at::parallel_for(first, last, kGrain, [&](int64_t begin, int64_t end) {
      kernels::optimizer_kernels().adamw(
          weights.data_ptr<float>() + begin, gradients.const_data_ptr<float>() + begin,
          exp_avg_.data_ptr<float>() + begin, exp_avg_sq_.data_ptr<float>() + begin,
          shadow == nullptr ? nullptr : shadow + begin, end - begin, c);
    });
  }
}

double flat_norm(const at::Tensor& flat) {
  const core::Scope scope("gradient.norm", 0, static_cast<double>(flat.nbytes()));
  if (!flat.is_cpu() || ops::reference_mode()) return at::linalg_vector_norm(flat).item<double>();
  // Blocks of a fixed size, summed in order: the result does not depend on the threads.
  const int64_t blocks = (flat.numel() + kGrain - 1) / kGrain;
  std::vector<double> sums(blocks);
  at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * kGrain, count = std::min(kGrain, flat.numel() - first);
      sums[block] =
          kernels::optimizer_kernels().sum_of_squares(flat.const_data_ptr<float>() + first, count);
    }
  });
  double total = 0;
  for (const double sum : sums) total += sum;
  return std::sqrt(total);
}

}  // namespace omnima::optim
