// The decoder of models/decoder.h over kernels/cuda, for rows that are appended to sequences: what
// a step puts on the device's queue. It asks nothing of the host, so that it can be recorded.
#pragma once

#include <ATen/core/Tensor.h>

#include <initializer_list>
#include <map>

#include "omnima/generate/cuda/device_weights.h"
#include "omnima/kernels/cuda/decode_attention.h"
#include "omnima/models/rotary.h"

namespace omnima::generate::cuda {

// Buffers of some rows, float32 but for `rows`. What a step reads and writes stays where it is.
struct Workspace {
  Workspace(const models::DecoderConfig& config, std::int64_t count, const at::Device& device);

  std::int64_t count;
  at::Tensor rows;                  // bytes: DecodeRow [count]
  at::Tensor x, normed, projected;  // [count, hidden]: the residual stream and what changes it
  at::Tensor change;                // of attention, while the mlp beside it reads the stream
  at::Tensor q, k, v, attended;     // [count, heads * head_dim]
  at::Tensor inner, activated;      // [count, (gate and) up], [count, intermediate]
  at::Tensor mean, rstd;            // of norms
  at::Tensor logits;                // [count, vocab] of a step
  kernels::cuda::DecodeRow* row() const {
    return static_cast<kernels::cuda::DecodeRow*>(rows.data_ptr());
  }
};

// A prompt's rows, which all are one sequence's.
struct Prompt {
  std::int64_t first = 0;  // position of the first row
  at::Tensor cache;        // [layers, key-value heads, 2, capacity, head_dim]
};

class DeviceForward {
 public:
  DeviceForward(const models::DecoderConfig& config, const DeviceWeights& weights,
                std::int64_t longest, bool bf16_prompts);

  // The first `rows` rows of the workspace, and their logits.
  void step(const Workspace& work, std::int64_t rows);
  // The same without logits.
  void rows(const Workspace& work, std::int64_t rows) { forward(work, rows, nullptr); }
  // All rows, by wide products.
  void prompt(const Workspace& work, const Prompt& prompt);
  // Of `count` rows from `first` on, into `logits` [count, vocab].
  void head(const Workspace& work, std::int64_t first, std::int64_t count, const at::Tensor& logits,
            bool wide);
  // The tables of a sequence with room for so many tokens.
  const models::RotaryTables& tables_of(std::int64_t capacity);

 private:
  // Where a product goes.
  struct Output {
    const DeviceLinear* linear;
    at::Tensor y;  // [rows, outputs], rows may be apart
  };

  void forward(const Workspace& work, std::int64_t rows, const Prompt* prompt);
  void attention(const Workspace& work, std::int64_t layer, std::int64_t rows,
                 const Prompt* prompt);
  void attend(const Workspace& work, std::int64_t layer, std::int64_t rows);
  bool attends_at_once(std::int64_t layer, std::int64_t rows, const Prompt& prompt) const;
  void attend_at_once(const Workspace& work, std::int64_t layer, const Prompt& prompt);
  void place(const Workspace& work, std::int64_t layer, std::int64_t rows);
  void mlp(const Workspace& work, const DeviceLayer& layer, std::int64_t rows, bool wide);
  void activate(const at::Tensor& inner, const at::Tensor& activated);
  void products(std::initializer_list<Output> outputs, const at::Tensor& x, bool wide,
                bool adds = false);
  void wide_product(const Output& output, const at::Tensor& x, bool adds);
  // y = norm(x), or x where there is no norm.
  void normalise(const Workspace& work, const DeviceNorm& norm, const at::Tensor& x,
                 const at::Tensor& y);
  void normalise_heads(const Workspace& work, const at::Tensor& weight, const at::Tensor& heads);
  // Whether a product may be added to the residual stream as it is made.
  bool adds_at_once(const DeviceNorm& norm) const;

  const models::DecoderConfig& config_;
  const DeviceWeights& weights_;
  std::int64_t longest_;
  bool bf16_prompts_;
  models::RotaryTables rotary_, local_rotary_;
  std::map<std::int64_t, models::RotaryTables> longer_;  // as Runner's
  at::Tensor slopes_, buckets_;                          // of ALiBi; of relative positions
  at::Tensor partial_;                                   // scratch of attention
};

}  // namespace omnima::generate::cuda
