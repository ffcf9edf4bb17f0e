// The work of one training step as the device gets it: gradients set to zero, every batch forward
// and backward, the norm, the verdict, AdamW. It never waits for the device and takes what differs
// from step to step from device memory, so that it can be captured.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "omnima/kernels/cuda/adamw.h"
#include "omnima/models/decoder.h"
#include "omnima/optim/adamw.h"
#include "omnima/train/row_workers.h"
#include "omnima/train/step.h"

namespace omnima::train::cuda {

class StepBody {
 public:
  StepBody(models::Decoder& model, optim::Adamw& optimizer, const StepOptions& options);

  // places: tokens of all batches. Losses are taken over them all and put right for the number of
  // targets by the constants, because a graph's own numbers cannot change.
  kernels::cuda::StepConstants constants_of(const StepNumbers& numbers, std::int64_t places) const;
  // Buffers that enqueue() will use are made and brought up to date.
  void prepare();
  void enqueue(const std::vector<BatchTensors>& batches, const std::vector<std::uint64_t>& seeds,
               std::int64_t places);
  // The host's part once a step was enqueued or replayed.
  void weights_changed();

  const at::Tensor& constants() const { return constants_; }  // bytes of a StepConstants
  const at::Tensor& verdict() const { return verdict_; }      // bytes of a Verdict
  const at::Device& device() const { return device_; }

 private:
  void finish();

  models::Decoder& model_;
  optim::Adamw& optimizer_;
  const StepOptions options_;
  const bool narrow_;  // bfloat16 products
  const at::Device device_;
  at::Tensor constants_, verdict_, loss_, sums_;
};

}  // namespace omnima::train::cuda
