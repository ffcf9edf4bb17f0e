// The step of the emulated device: a "graph" is the recorded wish to run the same body again on
// inputs that stay where they are.
#include <ATen/ops/empty_like.h>

#include <cstring>

#include "omnima/ops/cuda/seams.h"
#include "omnima/train/cuda/step_body.h"

namespace omnima::train {
namespace {

class EmulatedRunner final : public StepBackend {
 public:
  EmulatedRunner(models::Decoder& model, optim::Adamw& optimizer, const StepOptions& options)
      : vocab_(model.config().vocab_size), body_(model, optimizer, options) {}

  void stage(const std::vector<data::Batch>&) override {}

  void upload(const std::vector<data::Batch>& batches, const StepNumbers& numbers) override {
    check_tokens(batches, vocab_);
    batches_ = batches;
    parts_.clear();
    places_ = 0;
    for (const auto& batch : batches_) {
      parts_.push_back(batch_tensors(batch, at::kCPU));
      places_ += batch.rows * batch.time;
    }
    seeds_ = numbers.dropout_seeds;
    const auto constants = body_.constants_of(numbers, places_);
    std::memcpy(body_.constants().mutable_data_ptr(), &constants, sizeof constants);
    body_.prepare();
  }

  void run_eagerly() override { body_.enqueue(parts_, seeds_, places_); }

  void capture() override {
    captured_.clear();
    for (const auto& part : parts_) {
      captured_.push_back({at::empty_like(part.ids), at::empty_like(part.labels), {}});
    }
    captured_seeds_ = seeds_;
    captured_places_ = places_;
  }

  void replay() override {
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      captured_[i].ids.copy_(parts_[i].ids);
      captured_[i].labels.copy_(parts_[i].labels);
    }
    body_.enqueue(captured_, captured_seeds_, captured_places_);
  }

  DeviceOutcome wait() override {
    body_.weights_changed();
    kernels::cuda::Verdict verdict;
    std::memcpy(&verdict, body_.verdict().const_data_ptr(), sizeof verdict);
    return {verdict.loss, verdict.grad_norm, verdict.keep_weights != 0};
  }

 private:
  std::int64_t vocab_;
  cuda::StepBody body_;
  std::vector<data::Batch> batches_;
  std::vector<BatchTensors> parts_, captured_;
  std::vector<std::uint64_t> seeds_, captured_seeds_;
  std::int64_t places_ = 0, captured_places_ = 0;
};

}  // namespace

std::unique_ptr<DeviceStep> make_device_step(models::Decoder& model, optim::Optimizer& optimizer,
                                             const StepOptions& options) {
  if (!ops::cuda::on_device(model.arena().weights())) return nullptr;
  if (!works_on_device(optimizer, options)) return nullptr;
  return std::make_unique<DeviceStep>(
      std::make_unique<EmulatedRunner>(model, dynamic_cast<optim::Adamw&>(optimizer), options),
      GraphPolicy(model.config().dropout > 0 ? "dropout" : ""));
}

}  // namespace omnima::train
