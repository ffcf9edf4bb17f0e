#include "omnima/train/step_graph.h"

#include <exception>

#include "omnima/core/error.h"
#include "omnima/core/labels.h"
#include "omnima/optim/adamw.h"
#include "omnima/train/step.h"

namespace omnima::train {

std::optional<StepShape> shape_of(const std::vector<data::Batch>& batches) {
  if (batches.empty()) return std::nullopt;
  const auto& first = batches.front();
  for (const auto& batch : batches) {
    if (batch.rows != first.rows || batch.time != first.time || !batch.segments.empty()) {
      return std::nullopt;
    }
  }
  return StepShape{static_cast<std::int64_t>(batches.size()), first.rows, first.time};
}

StepMode GraphPolicy::next(const std::vector<data::Batch>& batches) {
  const auto shape = shape_of(batches);
  const bool again = shape && shape == last_;
  last_ = shape;
  if (!why_not_.empty() || !shape) return StepMode::kEager;
  if (shape == captured_) return StepMode::kReplay;
  if (!again) return StepMode::kEager;
  captured_ = shape;
  return StepMode::kCapture;
}

void GraphPolicy::refused(const std::string& reason) {
  why_not_ = reason;
  captured_.reset();
}

std::string GraphPolicy::describe() const {
  if (captured_) return "captured";
  return why_not_.empty() ? "eager" : "eager: " + why_not_;
}

DeviceOutcome DeviceStep::run(const std::vector<data::Batch>& batches, const StepNumbers& numbers,
                              const Lookahead& lookahead) {
  backend_->upload(batches, numbers);
  StepMode mode = policy_.next(batches);
  if (mode == StepMode::kCapture) {
    try {
      backend_->capture();
      mode = StepMode::kReplay;
    } catch (const std::exception& error) {
      policy_.refused(std::string("the capture failed: ") + error.what());
      mode = StepMode::kEager;
    }
  }
  if (mode == StepMode::kReplay) {
    backend_->replay();
  } else {
    backend_->run_eagerly();
  }
  if (lookahead && lookahead(ahead_)) backend_->stage(ahead_);
  return backend_->wait();
}

bool works_on_device(const optim::Optimizer& optimizer, const StepOptions& options) {
  return dynamic_cast<const optim::Adamw*>(&optimizer) != nullptr && optimizer.groups().plain() &&
         options.precision != "fp16" && options.clip_value == 0 && options.clip_adaptive == 0;
}

void check_tokens(const std::vector<data::Batch>& batches, std::int64_t vocab) {
  for (const auto& batch : batches) {
    for (const auto id : batch.input_ids) {
      core::require<core::DataError>(id >= 0 && id < vocab, "Token id ", id,
                                     " lies outside the vocabulary of ", vocab,
                                     " tokens: was the text encoded with this model's tokenizer?");
    }
    for (std::size_t i = 0; i < batch.labels.size(); ++i) {
      const auto label = batch.labels[i];
      core::require<core::DataError>(label == core::kIgnoredLabel || (label >= 0 && label < vocab),
                                     "Label ", label, " at place ", i,
                                     " lies outside the vocabulary of ", vocab,
                                     " tokens (-100 marks places to ignore).");
    }
  }
}

}  // namespace omnima::train
