#include "omnima/generate/cuda/device_runner.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <optional>

#include "omnima/core/error.h"
#include "omnima/core/scope.h"
#include "omnima/generate/weights.h"
#include "omnima/ops/cuda/seams.h"

namespace omnima::generate::cuda {

using kernels::cuda::DecodeRow;

namespace {

// From this many rows on, matrix products by a library are faster than gemv.
constexpr std::int64_t kWideRows = 32;

// What `make` returns: its memory is the queue's, and is filled before what the queue does next.
template <class F>
auto made_on(Queue& queue, F make) {
  std::optional<decltype(make())> made;
  queue.run([&] { made.emplace(make()); });
  return std::move(*made);
}

}  // namespace

std::int64_t rows_of_step(std::int64_t rows) {
  for (const std::int64_t few : {1, 2, 4}) {
    if (rows <= few) return few;
  }
  return (rows + 7) / 8 * 8;
}

class DeviceRunner::State final : public SequenceState {
 public:
  State(const models::DecoderConfig& config, std::int64_t capacity, const at::Device& device)
      : SequenceState(capacity),
        cache(at::empty(
            {config.num_hidden_layers, config.num_key_value_heads, 2, capacity, config.head_dim},
            at::TensorOptions(at::kFloat).device(device))) {}
  std::int64_t bytes() const override { return static_cast<std::int64_t>(cache.nbytes()); }

  at::Tensor cache;
};

DeviceRunner::DeviceRunner(const models::DecoderConfig& config, const DeviceWeights& weights,
                           const RunnerOptions& options)
    : config_(config),
      weights_(weights),
      options_(options),
      team_(options.rows > 1 ? at::get_num_threads() : 1),
      queue_(Queue::on(weights.device)),
      forward_(made_on(
          *queue_,
          [&] { return DeviceForward(config, weights, options.longest, options.bf16_prompts); })),
      step_(made_on(*queue_, [&] {
        Workspace step(config, rows_of_step(options.rows), weights.device);
        step.logits = at::empty({step.count, config.vocab_size}, step.x.options());
        return step;
      })) {
  const auto number = static_cast<std::int64_t>(sizeof(float));
  host_rows_ = queue_->host_memory(step_.rows.numel());
  host_logits_ = queue_->host_memory(step_.count * config.vocab_size * number)
                     .view(at::kFloat)
                     .view({step_.count, config.vocab_size});
}

// A step may still use what is freed next: the queue's end waits for it.
DeviceRunner::~DeviceRunner() { queue_ = nullptr; }

std::unique_ptr<SequenceState> DeviceRunner::begin(std::int64_t capacity, const Change*) {
  std::unique_ptr<SequenceState> state;
  queue_->run([&] { state = std::make_unique<State>(config_, capacity, weights_.device); });
  return state;
}

DecodeRow DeviceRunner::row_of(const State& state, std::int64_t position, std::int64_t token) {
  const models::RotaryTables& tables = forward_.tables_of(state.capacity());
  const auto* cos = tables.cos.defined() ? tables.cos.const_data_ptr<float>() : nullptr;
  const auto* sin = tables.sin.defined() ? tables.sin.const_data_ptr<float>() : nullptr;
  return {token, position, state.cache.data_ptr(), state.capacity(), cos, sin};
}

void DeviceRunner::prefill(SequenceState& sequence, std::span<const std::int64_t> tokens) {
  const core::Scope scope("prompt on the device");
  auto& state = static_cast<State&>(sequence);  // begin() made it
  const auto count = static_cast<std::int64_t>(tokens.size());
  const Prompt prompt{state.position(), state.cache};
  queue_->run([&] {
    prompt_ = nullptr;
    prompt_ = std::make_unique<Workspace>(config_, count, weights_.device);
    rows_.clear();
    for (std::int64_t i = 0; i < count; ++i) {
      rows_.push_back(row_of(state, prompt.first + i, tokens[i]));
    }
    state.advance(count);
    const auto bytes = static_cast<std::int64_t>(rows_.size() * sizeof(DecodeRow));
    prompt_->rows.copy_(at::from_blob(rows_.data(), {bytes}, at::kByte));
    if (count >= kWideRows) {
      forward_.prompt(*prompt_, prompt);
    } else {
      forward_.rows(*prompt_, count);
    }
  });
}

void DeviceRunner::append(std::span<SequenceState* const> states,
                          std::span<const std::int64_t> tokens) {
  const core::Scope scope("step on the device");
  const auto rows = static_cast<std::int64_t>(states.size());
  core::require(rows <= step_.count, "A step of ", rows, " rows was asked of a runner for ",
                step_.count, ".");
  queue_->wait();  // the rows of the step before may still be read
  queue_->run([&] {
    prompt_ = nullptr;
    rows_.clear();
    for (std::int64_t i = 0; i < rows; ++i) {
      auto& state = static_cast<State&>(*states[i]);
      rows_.push_back(row_of(state, state.position(), tokens[i]));
      state.advance(1);
    }
    const std::int64_t of_step = rows_of_step(rows);
    rows_.resize(static_cast<std::size_t>(of_step), DecodeRow{0, -1, nullptr, 0, nullptr, nullptr});
    const auto bytes = static_cast<std::int64_t>(rows_.size() * sizeof(DecodeRow));
    std::memcpy(host_rows_.mutable_data_ptr(), rows_.data(), static_cast<std::size_t>(bytes));
    step_.rows.narrow(0, 0, bytes).copy_(host_rows_.narrow(0, 0, bytes), /*non_blocking=*/true);
    run_step(of_step);
  });
}

// The first step of a size makes all that the others need; the second one is recorded.
void DeviceRunner::run_step(std::int64_t rows) {
  const auto work = [this, rows] { forward_.step(step_, rows); };
  const bool again = !seen_.insert(rows).second;
  if (again && records_ && !recordings_.contains(rows)) {
    try {
      recordings_[rows] = queue_->record(work);
    } catch (const std::exception&) {  // then launch by launch, with the same numbers
      recordings_.erase(rows);
      records_ = false;
    }
  }
  const auto found = recordings_.find(rows);
  if (found != recordings_.end()) {
    found->second->run();
  } else {
    work();
  }
}

void DeviceRunner::logits(std::int64_t first, std::int64_t count, float* out) {
  const core::Scope scope("head");
  const std::int64_t vocab = config_.vocab_size;
  queue_->run([&] {
    if (prompt_) {
      const at::Tensor made = at::empty({count, vocab}, step_.x.options());
      forward_.head(*prompt_, first, count, made, count >= kWideRows);
      at::from_blob(out, {count, vocab}, at::kFloat).copy_(made);
    } else {
      host_logits_.narrow(0, 0, count)
          .copy_(step_.logits.narrow(0, first, count), /*non_blocking=*/true);
    }
  });
  queue_->wait();
  if (!prompt_) {
    std::memcpy(out, host_logits_.const_data_ptr(),
                static_cast<std::size_t>(count * vocab) * sizeof(float));
  }
}

namespace {

class DeviceModel final : public RunnableModel {
 public:
  DeviceModel(const models::DecoderConfig& config, const Weights& weights, const at::Device& device)
      : weights_(config, weights, device) {}
  std::unique_ptr<ModelRunner> runner(const models::DecoderConfig& config,
                                      const RunnerOptions& options) const override {
    core::require<core::ConfigError>(
        options.cache == kernels::CacheFormat::kFloat32,
        "cache_precision is of the CPU's keys and values: leave it at fp32 on a device.");
    return std::make_unique<DeviceRunner>(config, weights_, options);
  }

 private:
  DeviceWeights weights_;
};

}  // namespace

}  // namespace omnima::generate::cuda

namespace omnima::generate {

std::string why_not_on_device(const models::DecoderConfig& config) {
  if (config.num_experts > 0) return "it has experts";
  if (config.blocksparse_block_size > 0) return "its attention is block-sparse";
  if (config.head_dim > kernels::cuda::kMostHeadDim) {
    return core::message("its heads have more than ", kernels::cuda::kMostHeadDim, " numbers");
  }
  return "";
}

std::unique_ptr<RunnableModel> make_device_model(const models::DecoderConfig& config,
                                                 const Weights& weights, const at::Device& device) {
  const auto options = at::TensorOptions(at::kFloat).device(device);
  if (!ops::cuda::on_device(at::empty({0}, options))) return nullptr;
  const std::string why_not = why_not_on_device(config);
  core::require<core::ConfigError>(why_not.empty(), "This model cannot write on ", device.str(),
                                   ": ", why_not, ". Write on the CPU.");
  return std::make_unique<cuda::DeviceModel>(config, weights, device);
}

}  // namespace omnima::generate
