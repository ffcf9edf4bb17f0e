// Writes on a device: prompts by wide products, tokens by a step that is recorded for its number of
// rows and run again with other tokens, places and sequences.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "omnima/generate/cuda/device_forward.h"
#include "omnima/generate/cuda/queue.h"
#include "omnima/generate/model_runner.h"

namespace omnima::generate::cuda {

class DeviceRunner final : public ModelRunner {
 public:
  DeviceRunner(const models::DecoderConfig& config, const DeviceWeights& weights,
               const RunnerOptions& options);
  ~DeviceRunner() override;

  std::unique_ptr<SequenceState> begin(std::int64_t capacity, const Change* change) override;
  void prefill(SequenceState& state, std::span<const std::int64_t> tokens) override;
  void append(std::span<SequenceState* const> states,
              std::span<const std::int64_t> tokens) override;
  void logits(std::int64_t first, std::int64_t count, float* out) override;
  Team& team() override { return team_; }

 private:
  class State;

  kernels::cuda::DecodeRow row_of(const State& state, std::int64_t position, std::int64_t token);
  void run_step(std::int64_t rows);

  const models::DecoderConfig& config_;
  const DeviceWeights& weights_;
  RunnerOptions options_;
  Team team_;
  std::unique_ptr<Queue> queue_;
  DeviceForward forward_;
  std::vector<kernels::cuda::DecodeRow> rows_;
  Workspace step_;
  std::unique_ptr<Workspace> prompt_;   // of the call before; null: it was a step
  at::Tensor host_rows_, host_logits_;  // of a step
  std::set<std::int64_t> seen_;         // rows of steps so far
  std::map<std::int64_t, std::unique_ptr<Queue::Recording>> recordings_;
  bool records_ = true;  // false: the device refused
};

// Rows of the step that serves `rows` of them: few sizes, so that few steps are recorded.
std::int64_t rows_of_step(std::int64_t rows);

}  // namespace omnima::generate::cuda
