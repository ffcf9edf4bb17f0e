// One training step in one call: batches, forward, loss, backward, accumulation, clipping,
// optimizer.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "omnima/data/batch.h"
#include "omnima/models/decoder.h"
#include "omnima/optim/optimizer.h"
#include "omnima/optim/schedule.h"
#include "omnima/train/averaged_weights.h"
#include "omnima/train/loss_scale.h"
#include "omnima/train/preference.h"
#include "omnima/train/row_workers.h"
#include "omnima/train/step_graph.h"

namespace omnima::train {

struct StepOptions {
  // fp32 | bf16 | fp16: float32 weights, and products of this type. fp16 runs on plain ATen.
  std::string precision = "fp32";
  double loss_scale = 65536;              // fp16: the first factor of the loss
  std::int64_t loss_scale_growth = 2000;  // fp16: steps without overflow after which it doubles
  std::string optimizer = "adamw";
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;
  double momentum = 0.95;
  bool nesterov = true;
  std::vector<std::string> groups;  // rates and decay by name pattern, see optim/groups.h
  std::vector<std::string> freeze;  // what is frozen, and when
  double clip_norm = 1.0;           // 0: no clipping
  double clip_value = 0;            // largest element of the gradient; 0: no clipping
  double clip_adaptive = 0;         // largest gradient of a row by its weights; 0: no clipping
  double label_smoothing = 0.0;
  double z_loss = 0.0;
  std::string preference;  // loss of pairs of answers, see preference.h; "": no pairs
  double preference_beta = 0.1;
  double preference_margin = 0.5;
  double desirable_weight = 1.0;
  double undesirable_weight = 1.0;
  double center_rewards = 0.0;
  std::string divergence;  // from a teacher, see ops/linear_divergence.h; "": there is none
  double temperature = 1.0;
  double prediction_weight = 0.3;  // of the mean loss of the model's prediction heads
  double ema_decay = 0;            // of the running mean of the weights; 0: there is none
  bool ema_eval = true;            // the mean is what is evaluated and saved
  std::string schedule = "cosine";
  std::int64_t warmup_steps = 0;
  std::int64_t total_steps = 0;  // 0: the schedule follows set_progress()
  double min_lr_ratio = 0.1;
  std::int64_t cycles = 4;  // these six: see optim::Schedule
  double cycle_growth = 1.0;
  std::int64_t stages = 3;
  double stage_factor = 0.1;
  double decay_share = 0.2;
  double rise_share = 0.3;
  std::int64_t accumulate = 1;
  std::int64_t checkpoint_layers = 0;  // so many blocks keep only their input for backward
  std::string offload_optimizer;       // "": state beside the weights, "cpu", or a directory
  std::int64_t ramp_steps = 0;  // in which the batches of a step rise from 1 to accumulate; 0: none
  std::int64_t seed = 0;        // of dropout

  PreferenceOptions preferences() const {
    return {preference,       preference_beta,    preference_margin,
            desirable_weight, undesirable_weight, center_rewards};
  }
  void check() const;
};

struct StepResult {
  double loss = 0;          // mean over all target tokens of the step, in nats
  std::int64_t tokens = 0;  // target tokens
  double grad_norm = 0;     // before clipping
  double lr = 0;
  // With experts: means over the routers, weighted by target tokens; not part of `loss`.
  double balance_loss = 0;
  double router_z_loss = 0;
  double loss_scale = 0;          // fp16: of this step
  bool skipped = false;           // fp16: the gradient overflowed and the weights were not changed
  double reward_accuracy = 0;     // of pairs: the share whose chosen answer has the higher reward
  double reward_margin = 0;       // mean reward of the chosen answer over the other; see PairTotals
  std::int64_t input_tokens = 0;  // that the model read, targets or not
};

class TrainStep {
 public:
  TrainStep(std::shared_ptr<models::Decoder> model, const StepOptions& options);

  // With options.divergence: the model to learn from, of the same vocabulary and device.
  void set_teacher(std::shared_ptr<models::Decoder> teacher);

  // Pulls options.accumulate batches, or fewer at the start of a ramp. Their gradient is that of
  // one batch of all their target tokens. A loss or gradient that is not finite throws
  // NonFiniteError before the weights change.
  StepResult run(data::BatchSource& source);
  StepResult run_batches(const std::vector<data::Batch>& batches);
  // The end of a step alone: clipping and update with a gradient that came from elsewhere, flat as
  // the state's buffers are. The result's loss and tokens are 0.
  StepResult apply_gradient(const at::Tensor& gradient);
  // Sum of losses and number of target tokens (or of pairs) over the next `batches` of the source.
  std::pair<double, std::int64_t> evaluate(data::BatchSource& source, std::int64_t batches);
  // The summed loss of every row of the next `batches`, in order.
  std::vector<double> row_losses(data::BatchSource& source, std::int64_t batches);
  // Forward and backward without an update, in seconds: the median of `repeats`.
  double time_pass(const data::Batch& batch, std::int64_t repeats);
  // Norm, clipping and update with the gradient that the last pass left, in seconds: the median of
  // `repeats`. The weights stay as they are; the optimizer's state moves on, so that such a step is
  // for timing only.
  double time_update(std::int64_t repeats);

  // The flat buffers: weights, those of the optimizer by their names, and the running mean "ema".
  optim::Buffers state() const;
  void load_state(const optim::Buffers& state, std::int64_t step);

  // Whether evaluation and saving want other weights than those that are trained.
  bool has_averaged_weights() const;
  // Puts those weights into the model, or the trained ones back. Steps and load_state() put the
  // trained ones back by themselves; evaluate() shows the averaged ones while it runs.
  void show_averaged_weights(bool averaged);

  // How the device runs the step, see GraphPolicy::describe(); "" where the step runs operator by
  // operator from here.
  std::string graph() const { return device_step_ ? device_step_->policy().describe() : ""; }
  std::int64_t step() const { return step_; }
  void set_progress(double progress) { progress_ = progress; }
  // Another warmup, or another number of batches a step, from the next step on.
  void replan(std::int64_t warmup_steps, std::int64_t accumulate);
  void set_lr(double lr);  // the highest learning rate of the schedule from now on
  const StepOptions& options() const { return options_; }
  // The batches of the step that threw NonFiniteError, for inspection.
  const std::vector<data::Batch>& last_batches() const { return batches_; }

 private:
  nn::Compute compute() const;
  // Of what learns: the adapter's parameters where there is one, else the model's.
  nn::Arena& arena() const { return adapter_ ? adapter_->arena() : model_->arena(); }
  void require_same_parameters() const;
  std::int64_t batches_of_step() const;
  std::int64_t workers(const data::Batch& batch) const;
  Slicing slicing(const data::Batch& batch) const;
  void prepare_weights(bool with_backward);
  // How a pass that learns from a teacher does so; nothing where none does.
  std::optional<models::Decoder::Teaching> teaching(std::int64_t worker) const;
  double learning_rate() const;
  void accumulate_gradients(StepResult& result);
  void accumulate_pairs(StepResult& result);
  Slicing slicing_of_pairs(const data::Batch& batch) const;
  void require_finite_loss(double loss) const;
  void require_finite_gradient(double norm, double loss) const;
  std::int64_t updates() const { return step_ - (loss_scale_ ? loss_scale_->skipped() : 0); }
  bool overflowed(StepResult& result);
  StepResult update_weights(StepResult result);
  double clip_gradients(double norm);
  StepResult run_on_device(StepResult result);

  std::shared_ptr<models::Decoder> model_;
  std::shared_ptr<models::Decoder> teacher_;  // or null
  std::shared_ptr<nn::Adapter> adapter_;      // that learns, or null: the model does
  StepOptions options_;
  optim::Schedule schedule_;
  std::unique_ptr<optim::Optimizer> optimizer_;
  AveragedWeights averaged_;
  std::unique_ptr<LossScale> loss_scale_;      // or null: not fp16
  std::unique_ptr<DeviceStep> device_step_;    // or null: operator by operator
  const data::BatchSource* source_ = nullptr;  // of the step that runs
  std::vector<data::Batch> batches_;
  std::int64_t step_ = 0;
  double progress_ = -1;
};

}  // namespace omnima::train
