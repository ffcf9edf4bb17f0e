#include "omnima/train/step.h"

#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <functional>

#include "omnima/core/error.h"
#include "omnima/core/field.h"
#include "omnima/core/mix.h"
#include "omnima/core/scope.h"
#include "omnima/optim/gradient.h"
#include "omnima/train/flush_denormals.h"
#include "omnima/train/row_workers.h"
#include "omnima/train/whole_update.h"

namespace omnima::train {

using core::NonFiniteError;
using core::require;

namespace {

constexpr double kLeastScale = 0x1p-14;  // a gradient that overflows below it is no rounding

at::ScalarType number_type(const std::string& precision) {
  if (precision == "fp16") return at::kHalf;
  return precision == "bf16" ? at::kBFloat16 : at::kFloat;
}

// What an adapter asks of its parameters comes before what the run does.
std::vector<std::string> groups_of(const nn::Adapter* adapter, const StepOptions& options) {
  std::vector<std::string> groups = adapter ? adapter->rates() : std::vector<std::string>{};
  groups.insert(groups.end(), options.groups.begin(), options.groups.end());
  return groups;
}

// The first time warms up and does not count.
double median_seconds(const char* name, std::int64_t repeats, const std::function<void()>& work) {
  require<core::ConfigError>(repeats > 0, name, " needs one of its repeats at least, not ", repeats,
                             ".");
  std::vector<double> seconds;
  for (std::int64_t i = 0; i <= repeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    work();
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    if (i > 0) seconds.push_back(taken.count());
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

}  // namespace

void StepOptions::check() const {
  core::check_field({"precision",
                     std::string("fp32"),
                     "number format of products",
                     0,
                     0,
                     {"fp32", "bf16", "fp16"}},
                    precision);
  core::check_field({"loss_scale", 65536.0, "first factor of the loss in fp16", kLeastScale, 1e30},
                    loss_scale);
  core::check_field({"loss_scale_growth", std::int64_t{2000}, "steps until it doubles", 1, 1e12},
                    loss_scale_growth);
  core::check_field({"clip_norm", 1.0, "largest gradient norm; 0: no clipping", 0, 1e9}, clip_norm);
  core::check_field({"label_smoothing", 0.0, "share of the target spread out", 0, 0.999999},
                    label_smoothing);
  core::check_field({"z_loss", 0.0, "weight of the squared log-sum of logits", 0, 1e3}, z_loss);
  preferences().check();
  if (!divergence.empty()) ops::Divergence{divergence, temperature}.check();
  core::check_field({"prediction_weight", 0.3, "weight of the prediction heads' loss", 0, 1e3},
                    prediction_weight);
  core::check_field({"clip_value", 0.0, "largest element of the gradient; 0: any", 0, 1e9},
                    clip_value);
  core::check_field(
      {"clip_adaptive", 0.0, "largest gradient of a row by its weights; 0: any", 0, 1e9},
      clip_adaptive);
  core::check_field({"ema_decay", 0.0, "what the mean of the weights keeps", 0, 0.9999999},
                    ema_decay);
  core::check_field({"total_steps", std::int64_t{0}, "steps of the schedule", 0, 1e12},
                    total_steps);
  core::check_field({"accumulate", std::int64_t{1}, "batches a step", 1, 1e6}, accumulate);
  core::check_field({"ramp_steps", std::int64_t{0}, "steps until a step has all batches", 0, 1e12},
                    ramp_steps);
  core::check_field({"checkpoint_layers", std::int64_t{0}, "blocks that compute twice", 0, 1e6},
                    checkpoint_layers);
}

TrainStep::TrainStep(std::shared_ptr<models::Decoder> model, const StepOptions& options)
    : model_((options.check(), std::move(model))),
      adapter_(model_->adapters().learning()),
      options_(options),
      schedule_{options.schedule,     options.lr,           options.min_lr_ratio,
                options.warmup_steps, options.cycles,       options.cycle_growth,
                options.stages,       options.stage_factor, options.decay_share,
                options.rise_share},
      optimizer_(
          optim::make_optimizer(options.optimizer, arena(),
                                {options.beta1, options.beta2, options.eps, options.weight_decay,
                                 options.momentum, options.nesterov, options.precision == "bf16",
                                 groups_of(adapter_.get(), options), options.freeze,
                                 optim::make_state_store(options.offload_optimizer,
                                                         model_->arena().weights().device())})),
      averaged_(arena(), options.ema_decay) {
  schedule_.check();
  require<core::ConfigError>(adapter_ != nullptr || model_->adapters().empty(),
                             "No adapter learns: one alone must be in use, counted once. Say which "
                             "with set_adapters({name: 1.0}).");
  require<core::ConfigError>(adapter_ != nullptr || !model_->arena().holds(),
                             "The model's matrices are held in blocks, which do not learn: add an "
                             "adapter, or load the model with its numbers.");
  if (optimizer_->averages()) {
    require<core::ConfigError>(options.schedule == "constant", options.optimizer,
                               " needs no schedule: give schedule constant (with a warmup), not ",
                               options.schedule, ".");
    require<core::ConfigError>(options.ema_decay == 0, options.optimizer,
                               " averages the weights itself: leave ema_decay at 0.");
  }
  if (options.precision == "fp16") {
    loss_scale_ = std::make_unique<LossScale>(options.loss_scale, options.loss_scale_growth);
  }
  if (!adapter_ && options_.preference.empty() && options_.divergence.empty()) {
    device_step_ = make_device_step(*model_, *optimizer_, options_);
  }
}

void TrainStep::set_teacher(std::shared_ptr<models::Decoder> teacher) {
  require<core::ConfigError>(!options_.divergence.empty(),
                             "A teacher serves a step with a divergence: say which.");
  require<core::ConfigError>(teacher->config().vocab_size == model_->config().vocab_size,
                             "The teacher has ", teacher->config().vocab_size,
                             " tokens, the model ", model_->config().vocab_size,
                             ": to learn from its logits both must have the same vocabulary.");
  teacher_ = std::move(teacher);
}

std::optional<models::Decoder::Teaching> TrainStep::teaching(std::int64_t worker) const {
  if (options_.divergence.empty()) return std::nullopt;
  require<core::ConfigError>(teacher_ != nullptr, "No teacher: give one with set_teacher().");
  nn::Compute how = compute();
  how.worker = worker;
  how.direct_gradients = false;
  how.checkpointed = 0;
  return models::Decoder::Teaching{
      teacher_.get(), how, {options_.divergence, options_.temperature}};
}

nn::Compute TrainStep::compute() const {
  const at::ScalarType type = number_type(options_.precision);
  return {type, true, 0, type != at::kHalf, options_.checkpoint_layers, true};
}

std::int64_t TrainStep::workers(const data::Batch& batch) const {
  return row_workers(batch.rows, model_->arena().numbers(), model_->arena().weights().device());
}

// A slice pays for packing the weights unless they are packed already (13.8M parameters in bf16:
// the same speed with 512 and 1,024 tokens, and 60 MiB less memory). Who holds the weights in
// blocks has little memory to spend.
Slicing TrainStep::slicing(const data::Batch& batch) const {
  const nn::Arena& base = model_->arena();
  return {workers(batch), base.packs() || base.holds() ? 512 : 1024};
}

// No worker has less than a pair.
Slicing TrainStep::slicing_of_pairs(const data::Batch& batch) const {
  Slicing found = slicing(batch);
  found.workers = std::min(found.workers, batch.rows / 2);
  return found;
}

// Workers only read the shared buffers: the bfloat16 copy and the packed weights are brought up to
// date before they start.
void TrainStep::prepare_weights(bool with_backward) {
  if (compute().dtype != at::kFloat) {
    const core::Scope scope("weights.to_16_bits");
    model_->arena().shadow(compute().dtype);
  }
  const core::Scope scope("weights.pack");
  model_->arena().pack(compute().dtype, with_backward);
  model_->adapters().prepare(model_->arena(), compute().dtype);
  if (!teacher_) return;
  if (compute().dtype != at::kFloat) teacher_->arena().shadow(compute().dtype);
  teacher_->arena().pack(compute().dtype, false);
  teacher_->adapters().prepare(teacher_->arena(), compute().dtype);
}

void TrainStep::require_same_parameters() const {
  require<core::ConfigError>(
      model_->adapters().learning() == adapter_ && (adapter_ || model_->adapters().empty()),
      "Other parameters learn now than when this training was begun: adapters were added, removed "
      "or exchanged. Make the trainer anew.");
}

void TrainStep::replan(std::int64_t warmup_steps, std::int64_t accumulate) {
  StepOptions changed = options_;
  changed.warmup_steps = warmup_steps;
  changed.accumulate = accumulate;
  changed.check();
  optim::Schedule schedule = schedule_;
  schedule.warmup_steps = warmup_steps;
  schedule.check();
  options_ = changed;
  schedule_ = schedule;
}

double TrainStep::learning_rate() const {
  double progress = std::max(0.0, progress_);
  if (progress_ < 0 && options_.total_steps > 0) {
    progress = static_cast<double>(step_) / static_cast<double>(options_.total_steps);
  }
  return schedule_.at(step_, progress);
}

// Leaves the gradient of the mean loss over the result's tokens in the arena, and the losses in the
// result.
void TrainStep::accumulate_gradients(StepResult& result) {
  nn::Arena& arena = this->arena();
  const at::Device device = arena.weights().device();
  prepare_weights(true);
  std::int64_t most = 1;
  for (const auto& batch : batches_) most = std::max(most, workers(batch));
  {
    const core::Scope scope("gradient.zero", 0, static_cast<double>(most * arena.size()) * 4);
    arena.zero_gradients(most);
  }
  const auto sum_workers = [&] {
    if (most == 1) return;
    const core::Scope scope("gradient.sum", 0,
                            4.0 * static_cast<double>((most + 1) * arena.size()));
    arena.sum_gradients(most);
  };
  if (!options_.preference.empty()) {
    accumulate_pairs(result);
    return sum_workers();
  }
  const double factor = loss_scale_ ? loss_scale_->value() : 1.0;
  const double scale = factor / static_cast<double>(result.tokens);
  std::vector<std::array<double, 2>> of_routers(most);
  for (std::size_t i = 0; i < batches_.size(); ++i) {
    if (batches_[i].targets == 0) continue;
    const auto seed = core::mix(
        core::mix(static_cast<std::uint64_t>(options_.seed), static_cast<std::uint64_t>(step_)), i);
    result.loss += sum_over_rows(
        batch_tensors(batches_[i], device), slicing(batches_[i]), true, [&](const Slice& slice) {
          const BatchTensors& rows = slice.rows;
          nn::Compute how = compute();
          how.worker = slice.worker;
          models::Decoder::Losses part;
          {
            const core::Scope scope("pass.forward");
            models::Decoder::LossOptions asked{how,
                                               scale,
                                               true,
                                               core::mix(seed, slice.first),
                                               false,
                                               {options_.label_smoothing, options_.z_loss},
                                               options_.prediction_weight};
            asked.teaching = teaching(slice.worker);
            part = model_->losses(rows.ids, rows.labels, rows.segments, asked);
          }
          for (std::size_t k = 0; part.of_routers.defined() && k < 2; ++k) {
            of_routers[slice.worker][k] += part.share / factor * part.of_routers[k].item<double>();
          }
          const core::Scope scope("pass.backward");
          torch::autograd::backward(part.roots(), {});
          return part.words.item<double>() / factor;
        });
  }
  sum_workers();
  for (const auto& [balance, z] : of_routers) {
    result.balance_loss += balance;
    result.router_z_loss += z;
  }
  if (loss_scale_) at::Tensor(arena.gradients()).mul_(1.0 / factor);
}

// The same of the mean loss of the step's pairs.
void TrainStep::accumulate_pairs(StepResult& result) {
  std::int64_t pairs = 0;
  for (const auto& batch : batches_) pairs += pairs_of(batch);
  const double factor = loss_scale_ ? loss_scale_->value() : 1.0;
  PairTotals totals;
  for (std::size_t i = 0; i < batches_.size(); ++i) {
    const auto seed = core::mix(
        core::mix(static_cast<std::uint64_t>(options_.seed), static_cast<std::uint64_t>(step_)), i);
    totals.add(preference_pass(*model_, batches_[i],
                               {{compute(), 1.0, true, seed},
                                slicing_of_pairs(batches_[i]),
                                factor / static_cast<double>(pairs),
                                true},
                               options_.preferences()));
  }
  const auto count = static_cast<double>(totals.pairs);
  result.loss = totals.value / count;
  result.reward_accuracy = static_cast<double>(totals.right) / count;
  result.reward_margin = totals.reward_margin / count;
  if (loss_scale_) at::Tensor(arena().gradients()).mul_(1.0 / factor);
}

void TrainStep::require_finite_loss(double loss) const {
  require<NonFiniteError>(std::isfinite(loss), "The loss of step ", step_ + 1, " is ",
                          std::abs(loss),  // a NaN's sign means nothing
                          "; the weights were not changed. Try a lower learning rate, a "
                          "longer warmup, clip_norm 1.0 or precision fp32.");
}

void TrainStep::require_finite_gradient(double norm, double loss) const {
  require<NonFiniteError>(std::isfinite(norm), "The gradient of step ", step_ + 1,
                          " is not finite (its loss is ", loss,
                          "); the weights were not changed. Try a lower learning rate, a longer "
                          "warmup, clip_norm 1.0 or precision fp32.");
}

std::int64_t TrainStep::batches_of_step() const {
  if (step_ >= options_.ramp_steps) return options_.accumulate;
  return 1 + (options_.accumulate - 1) * step_ / options_.ramp_steps;
}

void TrainStep::set_lr(double lr) {
  optim::Schedule changed = schedule_;
  changed.lr = lr;
  changed.check();
  schedule_ = changed;
}

StepResult TrainStep::run(data::BatchSource& source) {
  batches_.resize(static_cast<std::size_t>(batches_of_step()));
  {
    const core::Scope scope("data");
    for (auto& batch : batches_) source.next(batch);
  }
  source_ = &source;
  return run_batches(batches_);
}

StepResult TrainStep::run_batches(const std::vector<data::Batch>& batches) {
  const core::Scope scope("step");
  if (&batches != &batches_) {
    batches_ = batches;
    source_ = nullptr;
  }
  std::int64_t targets = 0, inputs = 0;
  for (const auto& batch : batches_) {
    targets += batch.targets;
    inputs += batch.rows * batch.time;
  }
  require<core::DataError>(targets > 0, "Step ", step_ + 1,
                           " has no target token to learn from: all labels are -100.");
  require_same_parameters();
  averaged_.restore();
  arena().freeze(optimizer_->groups().frozen_parameters(updates() + 1));
  StepResult result{0, targets, 0, learning_rate()};
  result.input_tokens = inputs;
  if (device_step_) return run_on_device(result);
  const FlushDenormals flush;
  accumulate_gradients(result);
  require_finite_loss(result.loss);
  if (adapter_) adapter_->add_penalty();
  return update_weights(result);
}

StepResult TrainStep::apply_gradient(const at::Tensor& gradient) {
  const at::Tensor& flat = arena().gradients();
  require<core::DataError>(gradient.numel() == flat.numel(), "The gradient has ", gradient.numel(),
                           " elements, the model has ", flat.numel(), " parameters.");
  averaged_.restore();
  const FlushDenormals flush;
  at::Tensor(flat).copy_(gradient.detach().reshape({-1}));
  return update_weights({0, 0, 0, learning_rate()});
}

// The end of a step, with its gradient in the arena: nothing moves where the norm is not finite.
StepResult TrainStep::update_weights(StepResult result) {
  for (const auto& span : optimizer_->groups().frozen(updates() + 1)) {
    span.of(arena().gradients()).zero_();
  }
  result.grad_norm = optim::flat_norm(arena().gradients());
  if (loss_scale_ && overflowed(result)) return result;
  require_finite_gradient(result.grad_norm, result.loss);
  const double scale = clip_gradients(result.grad_norm);
  whole_or_fatal(
      [&] { optimizer_->update(updates() + 1, result.lr, scale, options_.precision == "bf16"); });
  ++step_;
  if (adapter_) adapter_->after_update({updates(), options_.total_steps, scale});
  // It writes through pointers: a float16 copy must be seen as old.
  if (loss_scale_) arena().weights().unsafeGetTensorImpl()->bump_version();
  averaged_.take_in(updates());
  return result;
}

// Takes a gradient that is not finite for an overflow of float16: the step is done without an
// update.
bool TrainStep::overflowed(StepResult& result) {
  const bool finite = std::isfinite(result.grad_norm);
  result.loss_scale = loss_scale_->value();
  result.skipped = !finite;
  if (!finite && loss_scale_->value() / 2 < kLeastScale) {
    require_finite_gradient(result.grad_norm, result.loss);
  }
  loss_scale_->take_in(finite);
  if (!finite) ++step_;
  return !finite;
}

// Rows and elements are cut first, then the norm of what is left; returns by how much the gradient
// counts.
double TrainStep::clip_gradients(double norm) {
  nn::Arena& arena = this->arena();
  if (options_.clip_adaptive > 0) optim::clip_by_weight(arena, options_.clip_adaptive);
  if (options_.clip_value > 0) optim::clip_values(arena.gradients(), options_.clip_value);
  const bool cut = options_.clip_adaptive > 0 || options_.clip_value > 0;
  if (cut && options_.clip_norm > 0) norm = optim::flat_norm(arena.gradients());
  return options_.clip_norm > 0 && norm > options_.clip_norm ? options_.clip_norm / norm : 1.0;
}

bool TrainStep::has_averaged_weights() const {
  return (options_.ema_decay > 0 && options_.ema_eval) || optimizer_->averages();
}

void TrainStep::show_averaged_weights(bool averaged) {
  averaged_.restore();
  if (!averaged || !has_averaged_weights()) return;
  averaged_.show(options_.ema_decay > 0 && options_.ema_eval ? averaged_.mean()
                                                             : optimizer_->averaged_weights());
}

std::pair<double, std::int64_t> TrainStep::evaluate(data::BatchSource& source,
                                                    std::int64_t batches) {
  const core::Scope scope("evaluate");
  const FlushDenormals flush;
  const bool showed = averaged_.shows();
  show_averaged_weights(true);
  prepare_weights(false);
  double loss = 0;
  std::int64_t tokens = 0;
  data::Batch batch;
  for (std::int64_t i = 0; i < batches; ++i) {
    source.next(batch);
    if (batch.targets == 0) continue;
    nn::Compute how = compute();
    how.direct_gradients = false;
    how.checkpointed = 0;
    if (!options_.preference.empty()) {
      const PairTotals totals =
          preference_pass(*model_, batch, {{how}, slicing_of_pairs(batch)}, options_.preferences());
      loss += totals.value;
      tokens += totals.pairs;
      continue;
    }
    loss += sum_over_rows(
        batch_tensors(batch, model_->arena().weights().device()), slicing(batch), false,
        [&](const Slice& slice) {
          const core::Scope pass("pass.forward");
          const BatchTensors& rows = slice.rows;
          models::Decoder::LossOptions asked{how};
          asked.teaching = teaching(slice.worker);
          return model_->losses(rows.ids, rows.labels, rows.segments, asked).words.item<double>();
        });
    tokens += batch.targets;
  }
  if (!showed) averaged_.restore();
  return {loss, tokens};
}

std::vector<double> TrainStep::row_losses(data::BatchSource& source, std::int64_t batches) {
  const FlushDenormals flush;
  prepare_weights(false);
  nn::Compute how = compute();
  how.direct_gradients = false;
  how.checkpointed = 0;
  std::vector<double> found;
  data::Batch batch;
  for (std::int64_t i = 0; i < batches; ++i) {
    source.next(batch);
    const std::vector<double> rows = train::row_losses(*model_, batch, {how}, slicing(batch));
    found.insert(found.end(), rows.begin(), rows.end());
  }
  return found;
}

double TrainStep::time_pass(const data::Batch& batch, std::int64_t repeats) {
  const FlushDenormals flush;
  batches_ = {batch};
  return median_seconds("time_pass", repeats, [&] {
    StepResult unused{0, std::max<std::int64_t>(1, batch.targets)};
    accumulate_gradients(unused);
  });
}

double TrainStep::time_update(std::int64_t repeats) {
  const FlushDenormals flush;
  averaged_.restore();
  const at::Tensor kept = arena().weights().clone();
  const std::int64_t before = step_;
  const double seconds =
      median_seconds("time_update", repeats, [&] { update_weights({0, 0, 0, learning_rate()}); });
  at::Tensor(arena().weights()).copy_(kept);
  step_ = before;
  return seconds;
}

optim::Buffers TrainStep::state() const {
  optimizer_->store().settle();
  optim::Buffers buffers = optimizer_->state();
  buffers["weights"] = averaged_.trained();
  if (averaged_.mean().defined()) buffers["ema"] = averaged_.mean();
  if (loss_scale_) buffers["loss_scale"] = loss_scale_->state();
  return buffers;
}

void TrainStep::load_state(const optim::Buffers& state, std::int64_t step) {
  require<core::DataError>(step >= 0, "A training state cannot stand after step ", step, ".");
  averaged_.restore();
  for (auto& [name, target] : this->state()) {
    const auto found = state.find(name);
    require<core::DataError>(found != state.end(), "The training state lacks \"", name,
                             "\": it would not continue the same run.");
    require<core::DataError>(found->second.numel() == target.numel() &&
                                 found->second.scalar_type() == target.scalar_type(),
                             "The training state \"", name, "\" holds ", found->second.numel(), " ",
                             at::toString(found->second.scalar_type()),
                             " values, but this model and optimizer have ", target.numel(), " ",
                             at::toString(target.scalar_type()), " values.");
  }
  for (auto& [name, target] : this->state()) {
    const at::Tensor& values = state.at(name);
    if (!values.is_same(target)) optimizer_->store().fill(target, values);
  }
  step_ = step;
}

}  // namespace omnima::train
