// omnima._core: StepOptions, StepResult, TrainStep and the BatchSource base.
#include <pybind11/stl.h>

#include <algorithm>

#include "omnima/bindings/bindings.h"
#include "omnima/core/error.h"
#include "omnima/core/labels.h"
#include "omnima/train/document_losses.h"
#include "omnima/train/step.h"

namespace omnima::bindings {
namespace {

using train::StepOptions;
using train::StepResult;
using train::TrainStep;

template <class T>
std::vector<T> flat(const at::Tensor& x, at::ScalarType type) {
  const at::Tensor y = x.to(at::kCPU, type).contiguous();
  const T* at = y.const_data_ptr<T>();
  return {at, at + y.numel()};
}

data::Batch to_batch(const at::Tensor& ids, const at::Tensor& labels) {
  core::require<core::DataError>(ids.dim() == 2 && labels.sizes() == ids.sizes(),
                                 "A batch needs ids and labels of one shape [rows, time].");
  data::Batch batch;
  batch.rows = ids.size(0);
  batch.time = ids.size(1);
  batch.input_ids = flat<std::int64_t>(ids, at::kLong);
  batch.labels = flat<std::int64_t>(labels, at::kLong);
  batch.targets = static_cast<std::int64_t>(
      std::count_if(batch.labels.begin(), batch.labels.end(),
                    [](std::int64_t label) { return label != core::kIgnoredLabel; }));
  return batch;
}

using Pairs = std::vector<std::pair<at::Tensor, at::Tensor>>;

// Batches that are at hand, one after the other.
class GivenBatches : public data::BatchSource {
 public:
  explicit GivenBatches(const Pairs& pairs) : pairs_(pairs) {}
  void next(data::Batch& batch) override {
    const auto& [ids, labels] = pairs_.at(position_++);
    batch = to_batch(ids, labels);
  }
  std::int64_t position() const override { return static_cast<std::int64_t>(position_); }
  void seek(std::int64_t position) override { position_ = static_cast<std::size_t>(position); }

 private:
  const Pairs& pairs_;
  std::size_t position_ = 0;
};

}  // namespace

void bind_batch_source(py::module_& module) {
  py::class_<data::BatchSource>(module, "BatchSource", "A source of micro-batches for TrainStep.")
      .def_property_readonly("position", &data::BatchSource::position, "Batches given so far.")
      .def("seek", &data::BatchSource::seek, py::arg("position"),
           py::call_guard<py::gil_scoped_release>(), "Continue at this batch.");
}

void bind_train(py::module_& module) {
  const auto unlocked = py::call_guard<py::gil_scoped_release>();

  py::class_<StepOptions>(module, "StepOptions", "How a training step computes and updates.")
      .def(py::init<>())
      .def_readwrite("precision", &StepOptions::precision)
      .def_readwrite("loss_scale", &StepOptions::loss_scale)
      .def_readwrite("loss_scale_growth", &StepOptions::loss_scale_growth)
      .def_readwrite("optimizer", &StepOptions::optimizer)
      .def_readwrite("lr", &StepOptions::lr)
      .def_readwrite("beta1", &StepOptions::beta1)
      .def_readwrite("beta2", &StepOptions::beta2)
      .def_readwrite("eps", &StepOptions::eps)
      .def_readwrite("weight_decay", &StepOptions::weight_decay)
      .def_readwrite("momentum", &StepOptions::momentum)
      .def_readwrite("nesterov", &StepOptions::nesterov)
      .def_readwrite("groups", &StepOptions::groups)
      .def_readwrite("freeze", &StepOptions::freeze)
      .def_readwrite("clip_norm", &StepOptions::clip_norm)
      .def_readwrite("label_smoothing", &StepOptions::label_smoothing)
      .def_readwrite("z_loss", &StepOptions::z_loss)
      .def_readwrite("preference", &StepOptions::preference)
      .def_readwrite("preference_beta", &StepOptions::preference_beta)
      .def_readwrite("preference_margin", &StepOptions::preference_margin)
      .def_readwrite("desirable_weight", &StepOptions::desirable_weight)
      .def_readwrite("undesirable_weight", &StepOptions::undesirable_weight)
      .def_readwrite("center_rewards", &StepOptions::center_rewards)
      .def_readwrite("divergence", &StepOptions::divergence)
      .def_readwrite("temperature", &StepOptions::temperature)
      .def_readwrite("prediction_weight", &StepOptions::prediction_weight)
      .def_readwrite("clip_value", &StepOptions::clip_value)
      .def_readwrite("clip_adaptive", &StepOptions::clip_adaptive)
      .def_readwrite("ema_decay", &StepOptions::ema_decay)
      .def_readwrite("ema_eval", &StepOptions::ema_eval)
      .def_readwrite("schedule", &StepOptions::schedule)
      .def_readwrite("warmup_steps", &StepOptions::warmup_steps)
      .def_readwrite("total_steps", &StepOptions::total_steps)
      .def_readwrite("min_lr_ratio", &StepOptions::min_lr_ratio)
      .def_readwrite("cycles", &StepOptions::cycles)
      .def_readwrite("cycle_growth", &StepOptions::cycle_growth)
      .def_readwrite("stages", &StepOptions::stages)
      .def_readwrite("stage_factor", &StepOptions::stage_factor)
      .def_readwrite("decay_share", &StepOptions::decay_share)
      .def_readwrite("rise_share", &StepOptions::rise_share)
      .def_readwrite("accumulate", &StepOptions::accumulate)
      .def_readwrite("checkpoint_layers", &StepOptions::checkpoint_layers)
      .def_readwrite("offload_optimizer", &StepOptions::offload_optimizer)
      .def_readwrite("ramp_steps", &StepOptions::ramp_steps)
      .def_readwrite("seed", &StepOptions::seed);

  module.def("optimizer_names", &optim::optimizer_names, "What StepOptions.optimizer may be.");
  module.def("schedule_names", &optim::schedule_names, "What StepOptions.schedule may be.");

  module.def(
      "document_losses",
      [](models::Decoder& decoder, const at::Tensor& tokens, const at::Tensor& ends,
         std::int64_t start_id) {
        auto losses = train::document_losses(decoder, flat<std::int64_t>(tokens, at::kLong),
                                             flat<std::int64_t>(ends, at::kLong), start_id);
        return std::make_pair(std::move(losses.sums), std::move(losses.tokens));
      },
      py::arg("decoder"), py::arg("tokens"), py::arg("ends"), py::arg("start_id"), unlocked,
      "Of documents that lie one behind the other, ending at `ends`: the sum of each one's losses "
      "in nats, and of how many tokens. Longer ones are measured up to the model's context.");

  py::class_<StepResult>(module, "StepResult", "What a step did.")
      .def_readonly("loss", &StepResult::loss, "Mean over the step's target tokens, in nats.")
      .def_readonly("tokens", &StepResult::tokens, "Target tokens.")
      .def_readonly("input_tokens", &StepResult::input_tokens,
                    "Tokens that the model read, targets or not.")
      .def_readonly("grad_norm", &StepResult::grad_norm, "Before clipping.")
      .def_readonly("lr", &StepResult::lr)
      .def_readonly("balance_loss", &StepResult::balance_loss,
                    "With experts: the routers' load-balance loss, not part of `loss`.")
      .def_readonly("router_z_loss", &StepResult::router_z_loss,
                    "With experts: the routers' z-loss, not part of `loss`.")
      .def_readonly("reward_accuracy", &StepResult::reward_accuracy,
                    "Of pairs: the share whose chosen answer has the higher reward; of judged "
                    "answers: whose reward is on the right side of the model's drift.")
      .def_readonly("reward_margin", &StepResult::reward_margin,
                    "Of pairs: the mean reward of the chosen answer over the other; of judged "
                    "answers: the mean reward, that of bad ones counted negative.")
      .def_readonly("loss_scale", &StepResult::loss_scale, "fp16: factor of the loss; else 0.")
      .def_readonly("skipped", &StepResult::skipped, "fp16: overflow, the weights stayed.");

  py::class_<TrainStep>(module, "TrainStep", "A whole training step in one call.")
      .def(py::init<std::shared_ptr<models::Decoder>, const StepOptions&>(), py::arg("decoder"),
           py::arg("options"), unlocked)
      .def("set_teacher", &TrainStep::set_teacher, py::arg("decoder"), unlocked,
           "With options.divergence: the model to learn from, of the same vocabulary and device.")
      .def("run", &TrainStep::run, py::arg("source"), unlocked,
           "Pull options.accumulate batches and update the weights once.")
      .def(
          "run_batches",
          [](TrainStep& self, const Pairs& pairs) {
            std::vector<data::Batch> batches;
            for (const auto& [ids, labels] : pairs) batches.push_back(to_batch(ids, labels));
            return self.run_batches(batches);
          },
          py::arg("batches"), unlocked,
          "The same with given (ids, labels) pairs, one a micro-batch.")
      .def("apply_gradient", &TrainStep::apply_gradient, py::arg("gradient"), unlocked,
           "Clip and update with a flat gradient from elsewhere; loss and tokens are 0.")
      .def("evaluate", &TrainStep::evaluate, py::arg("source"), py::arg("batches"), unlocked,
           "Sum of losses in nats and number of target tokens (or of pairs) over the next batches.")
      .def("row_losses", &TrainStep::row_losses, py::arg("source"), py::arg("batches"), unlocked,
           "The summed loss of every row of the next batches, in order.")
      .def(
          "evaluate_batches",
          [](TrainStep& self, const Pairs& pairs) {
            GivenBatches source(pairs);
            return self.evaluate(source, static_cast<std::int64_t>(pairs.size()));
          },
          py::arg("batches"), unlocked, "The same over given (ids, labels) pairs.")
      .def(
          "time_pass",
          [](TrainStep& self, const at::Tensor& ids, const at::Tensor& labels, int repeats) {
            return self.time_pass(to_batch(ids, labels), repeats);
          },
          py::arg("ids"), py::arg("labels"), py::arg("repeats") = 3, unlocked,
          "Median seconds of a forward and backward pass; the weights stay as they are.")
      .def("time_update", &TrainStep::time_update, py::arg("repeats") = 3, unlocked,
           "Median seconds of norm, clipping and update; the weights stay as they are, but the "
           "optimizer's state moves on.")
      .def("state", &TrainStep::state,
           "Flat buffers: weights, those of the optimizer, and ema where there is a mean.")
      .def_property_readonly("has_averaged_weights", &TrainStep::has_averaged_weights,
                             "Whether other weights than the trained ones are evaluated and saved.")
      .def("show_averaged_weights", &TrainStep::show_averaged_weights, py::arg("averaged"),
           unlocked, "Put the weights to evaluate and save into the model, or the trained back.")
      .def("load_state", &TrainStep::load_state, py::arg("state"), py::arg("step"), unlocked,
           "Copy the buffers in and continue after `step`.")
      .def("set_progress", &TrainStep::set_progress, py::arg("progress"),
           "Fraction of the run that is done; the schedule follows it instead of total_steps.")
      .def("replan", &TrainStep::replan, py::arg("warmup_steps"), py::arg("accumulate"),
           "Take another warmup, or another number of batches a step, from the next step on.")
      .def("set_lr", &TrainStep::set_lr, py::arg("lr"),
           "The highest learning rate of the schedule from now on.")
      .def_property_readonly("step", &TrainStep::step, "Updates done.")
      .def_property_readonly("graph", &TrainStep::graph,
                             "On a GPU \"captured\" or \"eager\" with the reason; empty elsewhere.")
      .def_property_readonly(
          "last_batches",
          [](const TrainStep& self) {
            std::vector<std::pair<std::vector<std::int64_t>, std::vector<std::int64_t>>> pairs;
            for (const auto& batch : self.last_batches()) {
              pairs.emplace_back(batch.input_ids, batch.labels);
            }
            return pairs;
          },
          "Flat (ids, labels) of the last step's micro-batches.");
}

}  // namespace omnima::bindings
