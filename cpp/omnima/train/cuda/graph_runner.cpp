// Training steps on a CUDA device: a stream of their own, inputs through pinned memory on a second
// stream, and the whole step as a CUDA graph.
#include <ATen/Context.h>
#include <ATen/cuda/CUDAEvent.h>
#include <ATen/cuda/CUDAGraph.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <array>
#include <cstring>

#include "omnima/core/error.h"
#include "omnima/train/cuda/step_body.h"

namespace omnima::train {
namespace {

using c10::cuda::CUDAStream;
using c10::cuda::CUDAStreamGuard;
using data::Batch;
using kernels::cuda::StepConstants;
using kernels::cuda::Verdict;

at::Tensor pinned(at::IntArrayRef sizes, at::ScalarType type) {
  return at::empty(sizes, at::TensorOptions(type).pinned_memory(true));
}

// The ids and labels of a step's batches, in pinned memory and on the device.
class Slot {
 public:
  bool holds(const std::vector<Batch>& batches, const StepShape& shape) const {
    if (shape_ != shape) return false;
    std::size_t part = 0;
    const auto* at = static_cast<const std::byte*>(host_.const_data_ptr());
    const std::size_t bytes = part_bytes();
    for (const bool labels : {false, true}) {
      for (const auto& batch : batches) {
        const auto& values = labels ? batch.labels : batch.input_ids;
        if (std::memcmp(at + part++ * bytes, values.data(), bytes) != 0) return false;
      }
    }
    return true;
  }

  void fill(const std::vector<Batch>& batches, const StepShape& shape, const at::Device& device,
            const CUDAStream& stream) {
    moved_.synchronize();  // the pinned memory may still be read
    const CUDAStreamGuard guard(stream);
    if (shape_ != shape) {
      const std::vector<std::int64_t> sizes{2, shape.batches, shape.rows, shape.time};
      host_ = pinned(sizes, at::kLong);
      device_ = at::empty(sizes, at::TensorOptions(at::kLong).device(device));
      shape_ = shape;
    }
    std::size_t part = 0;
    auto* at = static_cast<std::byte*>(host_.mutable_data_ptr());
    for (const bool labels : {false, true}) {
      for (const auto& batch : batches) {
        const auto& values = labels ? batch.labels : batch.input_ids;
        std::memcpy(at + part++ * part_bytes(), values.data(), part_bytes());
      }
    }
    device_.copy_(host_, /*non_blocking=*/true);
    moved_.record(stream);
  }

  const at::Tensor& device() const { return device_; }
  at::cuda::CUDAEvent& moved() { return moved_; }

 private:
  std::size_t part_bytes() const {
    return static_cast<std::size_t>(shape_->rows * shape_->time) * sizeof(std::int64_t);
  }

  std::optional<StepShape> shape_;
  at::Tensor host_, device_;  // int64 [2, batches, rows, time]: ids, labels
  at::cuda::CUDAEvent moved_;
};

std::vector<BatchTensors> parts_of(const at::Tensor& inputs) {
  std::vector<BatchTensors> parts;
  for (std::int64_t i = 0; i < inputs.size(1); ++i) {
    parts.push_back({inputs.select(0, 0).select(0, i), inputs.select(0, 1).select(0, i), {}});
  }
  return parts;
}

class GraphRunner final : public StepBackend {
 public:
  GraphRunner(models::Decoder& model, optim::Adamw& optimizer, const StepOptions& options)
      : model_(model),
        body_(model, optimizer, options),
        index_(body_.device().index()),
        steps_(c10::cuda::getStreamFromPool(/*isHighPriority=*/true, index_)),
        copies_(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, index_)),
        constants_(pinned({sizeof(StepConstants)}, at::kByte)),
        verdict_(pinned({sizeof(Verdict)}, at::kByte)) {}

  void stage(const std::vector<Batch>& batches) override {
    const auto shape = shape_of(batches);
    if (shape) slots_[1 - current_].fill(batches, *shape, body_.device(), copies_);
  }

  void upload(const std::vector<Batch>& batches, const StepNumbers& numbers) override {
    const c10::cuda::CUDAGuard guard(index_);
    check_tokens(batches, model_.config().vocab_size);
    places_ = 0;
    for (const auto& batch : batches) places_ += batch.rows * batch.time;
    seeds_ = numbers.dropout_seeds;
    before_.record(c10::cuda::getCurrentCUDAStream(index_));
    before_.block(steps_);
    const CUDAStreamGuard on_steps(steps_);
    const StepConstants constants = body_.constants_of(numbers, places_);
    std::memcpy(constants_.mutable_data_ptr(), &constants, sizeof constants);
    body_.constants().copy_(constants_, /*non_blocking=*/true);
    body_.prepare();
    irregular_.clear();
    const auto shape = shape_of(batches);
    if (shape) {
      if (slots_[1 - current_].holds(batches, *shape)) {
        current_ = 1 - current_;  // it was staged
      } else {
        slots_[current_].fill(batches, *shape, body_.device(), copies_);
      }
      slots_[current_].moved().block(steps_);
      return;
    }
    for (const auto& batch : batches) {
      const BatchTensors here = batch_tensors(batch, at::kCPU);
      // The model reads the segments on the host.
      irregular_.push_back(
          {here.ids.to(body_.device()), here.labels.to(body_.device()), here.segments});
    }
  }

  void run_eagerly() override {
    const CUDAStreamGuard guard(steps_);
    body_.enqueue(irregular_.empty() ? parts_of(slots_[current_].device()) : irregular_, seeds_,
                  places_);
  }

  // Everything that the step uses was made by the eager step before it, on this stream.
  void capture() override {
    const CUDAStreamGuard guard(steps_);
    graph_.reset();
    inputs_ = at::empty_like(slots_[current_].device());
    steps_.synchronize();
    c10::cuda::CUDACachingAllocator::emptyCache();  // the graph has a pool of its own to fill
    auto graph = std::make_unique<at::cuda::CUDAGraph>();
    // Other threads may go on using the device in ways that a capture in global mode forbids.
    graph->capture_begin({0, 0}, cudaStreamCaptureModeThreadLocal);
    try {
      body_.enqueue(parts_of(inputs_), seeds_, places_);
    } catch (const std::exception& error) {
      abandon(*graph, error.what());
    }
    graph->capture_end();
    graph_ = std::move(graph);
  }

  void replay() override {
    const CUDAStreamGuard guard(steps_);
    inputs_.copy_(slots_[current_].device(), /*non_blocking=*/true);
    graph_->replay();
  }

  DeviceOutcome wait() override {
    const CUDAStreamGuard guard(steps_);
    verdict_.copy_(body_.verdict(), /*non_blocking=*/true);
    done_.record(steps_);
    done_.synchronize();
    body_.weights_changed();
    Verdict verdict;
    std::memcpy(&verdict, verdict_.const_data_ptr(), sizeof verdict);
    return {verdict.loss, verdict.grad_norm, verdict.keep_weights != 0};
  }

 private:
  // A capture that failed must still be ended before the stream can be used again.
  [[noreturn]] static void abandon(at::cuda::CUDAGraph& graph, const std::string& why) {
    std::string also;
    try {
      graph.capture_end();
    } catch (const std::exception& error) {
      also = std::string("; ending it: ") + error.what();
    }
    throw core::Error(why + also);
  }

  models::Decoder& model_;
  cuda::StepBody body_;
  c10::DeviceIndex index_;
  CUDAStream steps_, copies_;
  at::Tensor constants_, verdict_;  // pinned
  std::array<Slot, 2> slots_;
  std::size_t current_ = 0;
  std::vector<BatchTensors> irregular_;
  std::vector<std::uint64_t> seeds_;
  std::int64_t places_ = 0;
  at::Tensor inputs_;  // what the graph reads
  std::unique_ptr<at::cuda::CUDAGraph> graph_;
  at::cuda::CUDAEvent before_, done_;
};

}  // namespace

std::unique_ptr<DeviceStep> make_device_step(models::Decoder& model, optim::Optimizer& optimizer,
                                             const StepOptions& options) {
  if (!model.arena().weights().is_cuda() || ops::reference_mode()) return nullptr;
  if (!works_on_device(optimizer, options)) return nullptr;
  const std::string why_not =
      optimizer.store().offloads()               ? "the optimizer's state comes and goes in slices"
      : model.config().drops()                   ? "dropout draws another mask in every step"
      : model.config().rope_scaling == "dynamic" ? "rotary frequencies follow a step's documents"
      : model.config().num_experts > 0 ? "the tokens that come to an expert are counted on the host"
                                       : "";
  return std::make_unique<DeviceStep>(
      std::make_unique<GraphRunner>(model, dynamic_cast<optim::Adamw&>(optimizer), options),
      GraphPolicy(why_not));
}

}  // namespace omnima::train
