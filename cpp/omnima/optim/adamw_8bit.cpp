#include "omnima/optim/adamw_8bit.h"

#include <ATen/ops/zeros.h>

#include <algorithm>

#include "omnima/core/error.h"
#include "omnima/core/scope.h"
#include "omnima/kernels/cpu/updates.h"
#include "omnima/optim/adamw.h"
#include "omnima/optim/flat_pass.h"

namespace omnima::optim {

using kernels::kBlock8bit;

Adamw8bit::Adamw8bit(nn::Arena& arena, const OptimizerOptions& options)
    : Optimizer(arena, options) {
  core::require<core::ConfigError>(arena.weights().is_cpu(),
                                   "adamw_8bit runs on the CPU only. On a GPU take adamw, or "
                                   "adafactor to save memory.");
  int64_t blocks = 0;
  for (const auto& parameter : arena.parameters()) {
    first_block_.push_back(blocks);
    blocks += (parameter.size() + kBlock8bit - 1) / kBlock8bit;
  }
  mean_ = store_->zeros(arena.size(), at::kByte);
  root_ = store_->zeros(arena.size(), at::kByte);
  mean_scale_ = at::zeros({blocks}, at::kFloat);
  root_scale_ = at::zeros({blocks}, at::kFloat);
}

void Adamw8bit::update(std::int64_t step, double lr, double grad_scale, bool with_shadow) {
  const core::Scope scope("optimizer", 0, (with_shadow ? 18.0 : 16.0) * arena_.size());
  const auto real = [](double x) { return static_cast<float>(x); };
  kernels::Adamw8bitConstants c{adamw_constants(options_, step, grad_scale),
                                static_cast<std::uint32_t>(step) * 0x9e3779b9u};
  auto* weights = arena_.weights().data_ptr<float>();
  const auto* gradients = arena_.gradients().const_data_ptr<float>();
  auto* shadow = shadow_of(arena_, with_shadow);
  for (std::size_t i = 0; i < first_block_.size(); ++i) {
    const auto span = groups_.parameter(i, step);
    if (!span) continue;
    c.lr = real(lr * span->lr);
    c.weight_decay = real(span->weight_decay);
    // Slices begin where a block does.
    const auto update = [&](int64_t from, int64_t size, const StateStore::Tensors& state) {
      const Span slice = span->part(from, size);
      auto* mean = state[0].data_ptr<std::uint8_t>();
      auto* root = state[1].data_ptr<std::uint8_t>();
      const int64_t blocks = (size + kBlock8bit - 1) / kBlock8bit;
      at::parallel_for(0, blocks, kGrain / kBlock8bit, [&](int64_t begin, int64_t end) {
        const int64_t first = slice.first + begin * kBlock8bit;
        const int64_t last = std::min(slice.last, slice.first + end * kBlock8bit);
        const int64_t block = first_block_[i] + from / kBlock8bit + begin;
        const kernels::Moments8bit moments{mean + first - slice.first, root + first - slice.first,
                                           mean_scale_.data_ptr<float>() + block,
                                           root_scale_.data_ptr<float>() + block};
        kernels::update_kernels().adamw_8bit(weights + first, gradients + first, moments,
                                             shadow == nullptr ? nullptr : shadow + first,
                                             last - first, first, c);
      });
    };
    store_->over({span->of(mean_), span->of(root_)}, update);
  }
}

Buffers Adamw8bit::state() const {
  return {{"exp_avg_8bit", mean_},
          {"exp_avg_scale", mean_scale_},
          {"exp_avg_sq_root_8bit", root_},
          {"exp_avg_sq_root_scale", root_scale_}};
}

}  // namespace omnima::optim
