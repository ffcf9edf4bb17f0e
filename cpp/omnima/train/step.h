// One training step in one call: batches, forward, loss, backward, accumulation, clipping,
// optimizer.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "omnima/data/batch.h"
#include "omnima/models/decoder.h"
#include "omnima/optim/adamw.h"
#include "omnima/optim/schedule.h"
#include "omnima/train/row_workers.h"
#include "omnima/train/step_graph.h"

namespace omnima::train {

struct StepOptions {
  std::string precision = "fp32";  // fp32 | bf16 (float32 weights, bfloat16 products)
  std::string optimizer = "adamw";
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;
  double clip_norm = 1.0;  // 0: no clipping
  double label_smoothing = 0.0;
  double z_loss = 0.0;
  std::string schedule = "cosine";
  std::int64_t warmup_steps = 0;
  std::int64_t total_steps = 0;  // 0: the schedule follows set_progress()
  double min_lr_ratio = 0.1;
  std::int64_t accumulate = 1;
  std::int64_t checkpoint_layers = 0;  // so many blocks keep only their input for backward
  std::int64_t seed = 0;               // of dropout

  void check() const;
};

struct StepResult {
  double loss = 0;          // mean over all target tokens of the step, in nats
  std::int64_t tokens = 0;  // target tokens
  double grad_norm = 0;     // before clipping
  double lr = 0;
};

class TrainStep {
 public:
  TrainStep(std::shared_ptr<models::Decoder> model, const StepOptions& options);

  // Pulls options.accumulate batches. Their gradient is that of one batch of all their target
  // tokens. A loss or gradient that is not finite throws NonFiniteError before the weights change.
  StepResult run(data::BatchSource& source);
  StepResult run_batches(const std::vector<data::Batch>& batches);
  // Sum of losses and number of target tokens over the next `batches` of the source.
  std::pair<double, std::int64_t> evaluate(data::BatchSource& source, std::int64_t batches);
  // Forward and backward without an update, in seconds: the median of `repeats`.
  double time_pass(const data::Batch& batch, std::int64_t repeats);

  // The flat float32 buffers: weights, exp_avg, exp_avg_sq.
  std::map<std::string, at::Tensor> state() const;
  void load_state(const std::map<std::string, at::Tensor>& state, std::int64_t step);

  // How the device runs the step, see GraphPolicy::describe(); "" where the step runs operator by
  // operator from here.
  std::string graph() const { return device_step_ ? device_step_->policy().describe() : ""; }
  std::int64_t step() const { return step_; }
  void set_progress(double progress) { progress_ = progress; }
  // Another warmup, or another number of batches a step, from the next step on.
  void replan(std::int64_t warmup_steps, std::int64_t accumulate);
  const StepOptions& options() const { return options_; }
  // The batches of the step that threw NonFiniteError, for inspection.
  const std::vector<data::Batch>& last_batches() const { return batches_; }

 private:
  nn::Compute compute() const;
  std::int64_t workers(const data::Batch& batch) const;
  Slicing slicing(const data::Batch& batch) const;
  void prepare_weights(bool with_backward);
  double learning_rate() const;
  double accumulate_gradients(std::int64_t targets);
  void require_finite_loss(double loss) const;
  void require_finite_gradient(double norm, double loss) const;
  StepResult run_on_device(std::int64_t targets);

  std::shared_ptr<models::Decoder> model_;
  StepOptions options_;
  optim::Schedule schedule_;
  optim::Adamw optimizer_;
  std::unique_ptr<DeviceStep> device_step_;    // or null: operator by operator
  const data::BatchSource* source_ = nullptr;  // of the step that runs
  std::vector<data::Batch> batches_;
  std::int64_t step_ = 0;
  double progress_ = -1;
};

}  // namespace omnima::train
