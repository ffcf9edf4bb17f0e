#include "omnima/train/cuda/step_body.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>

#include "omnima/ops/cuda/seams.h"

namespace omnima::train::cuda {

using kernels::cuda::StepConstants;
using kernels::cuda::Verdict;

StepBody::StepBody(models::Decoder& model, optim::Adamw& optimizer, const StepOptions& options)
    : model_(model),
      optimizer_(optimizer),
      options_(options),
      narrow_(options.precision == "bf16"),
      device_(model.arena().weights().device()) {
  const auto bytes = at::TensorOptions(at::kByte).device(device_);
  const auto real = at::TensorOptions(at::kFloat).device(device_);
  constants_ = at::zeros({static_cast<std::int64_t>(sizeof(StepConstants))}, bytes);
  verdict_ = at::zeros({static_cast<std::int64_t>(sizeof(Verdict))}, bytes);
  loss_ = at::zeros({}, real);
  sums_ = at::empty({kernels::cuda::norm_sums(model.arena().size())}, real);
}

StepConstants StepBody::constants_of(const StepNumbers& numbers, std::int64_t places) const {
  const auto real = [](double x) { return static_cast<float>(x); };
  const auto step = static_cast<double>(numbers.step);
  StepConstants c{};
  c.lr = real(numbers.lr);
  c.beta1 = real(options_.beta1);
  c.beta2 = real(options_.beta2);
  c.eps = real(options_.eps);
  c.weight_decay = real(options_.weight_decay);
  c.correction1 = real(1.0 - std::pow(options_.beta1, step));
  c.correction2 = real(std::sqrt(1.0 - std::pow(options_.beta2, step)));
  c.rescale = real(static_cast<double>(places) / static_cast<double>(numbers.targets));
  c.clip_norm = real(options_.clip_norm);
  return c;
}

void StepBody::prepare() {
  model_.arena().gradients();
  if (narrow_) model_.arena().shadow();
}

void StepBody::enqueue(const std::vector<BatchTensors>& batches,
                       const std::vector<std::uint64_t>& seeds, std::int64_t places) {
  model_.arena().zero_gradients(1);
  loss_.zero_();
  for (std::size_t i = 0; i < batches.size(); ++i) {
    models::Decoder::LossOptions how;
    how.compute = {narrow_ ? at::kBFloat16 : at::kFloat, true, 0, false,
                   options_.checkpoint_layers};
    how.scale = 1.0 / static_cast<double>(places);
    how.training = true;
    how.dropout_seed = seeds[i];
    how.ids_checked = true;
    how.terms = {options_.label_smoothing, options_.z_loss};
    how.prediction_weight = options_.prediction_weight;
    const models::Decoder::Losses part =
        model_.losses(batches[i].ids, batches[i].labels, batches[i].segments, how);
    torch::autograd::backward(part.roots(), {});
    loss_.add_(part.words.detach());
  }
  finish();
}

void StepBody::finish() {
  nn::Arena& arena = model_.arena();
  const at::Tensor &weights = arena.weights(), &gradients = arena.gradients();
  auto* shadow =
      narrow_ ? static_cast<kernels::bfloat16*>(arena.shadow().mutable_data_ptr()) : nullptr;
  const auto* constants = static_cast<const StepConstants*>(constants_.const_data_ptr());
  auto* verdict = static_cast<Verdict*>(verdict_.mutable_data_ptr());
  ops::cuda::on_stream(weights, [&](auto stream) {
    kernels::cuda::sum_of_squares(gradients.const_data_ptr<float>(), arena.size(),
                                  sums_.data_ptr<float>(), stream);
    kernels::cuda::judge(sums_.const_data_ptr<float>(), sums_.numel(),
                         loss_.const_data_ptr<float>(), constants, verdict, stream);
  });
  const auto update = [&](int64_t first, int64_t count, const auto& moments) {
    const kernels::cuda::AdamwBuffers buffers{
        weights.data_ptr<float>() + first,
        gradients.const_data_ptr<float>() + first,
        moments[0].template data_ptr<float>(),
        moments[1].template data_ptr<float>(),
        shadow == nullptr ? nullptr : shadow + first,
        count,
        std::clamp(arena.decayed() - first, int64_t{0}, count)};
    ops::cuda::on_stream(
        weights, [&](auto stream) { kernels::cuda::adamw(buffers, constants, verdict, stream); });
  };
  optimizer_.store().over({optimizer_.exp_avg(), optimizer_.exp_avg_sq()}, update);
}

// The kernel writes through pointers. With a shadow it writes that too; without one, an older
// bfloat16 copy must be seen as old.
void StepBody::weights_changed() {
  if (!narrow_) model_.arena().weights().unsafeGetTensorImpl()->bump_version();
}

}  // namespace omnima::train::cuda
