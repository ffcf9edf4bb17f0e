// Causal self-attention over a fused projection: rotary turn, grouped heads, document borders,
// sliding windows, patterns of blocks, caps, ALiBi and dropout.
#pragma once

#include <ATen/core/Tensor.h>

#include <cmath>

#include "omnima/core/block_pattern.h"
#include "omnima/ops/weight.h"

namespace omnima::ops {

struct AttentionShape {
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
};

// Where the tokens of a batch stand.
struct Positions {
  at::Tensor ids;  // int64 [batch, time]: position inside the document; undefined: 0, 1, …
  at::Tensor cos;  // float32 [context, head_dim / 2]; undefined: no rotary turn
  at::Tensor sin;
  // The same for devices, where it may be given: int32 [documents + 1] places in the flattened
  // tokens where documents begin, and at last the number of tokens.
  at::Tensor document_starts{};
  int64_t longest_document = 0;
};

// What changes the scores or the weights. The defaults change nothing.
struct AttentionOptions {
  int64_t window = 0;   // a token sees so many of the newest, itself included; 0: all
  double softcap = 0;   // scores become softcap * tanh(score / softcap) (Gemma 2, 2024); 0: stay
  at::Tensor slopes{};  // float32 [heads]: ALiBi (Press et al. 2022); undefined: none
  double dropout = 0;   // probability of zeroing a weight
  uint64_t dropout_seed = 0;  // the zeroed ones are a pure function of it
  // float32 [heads, time or more], differentiable: added to the score of a key so many places back.
  at::Tensor bias{};
  bool causal = true;           // false: a token sees both sides, in a window as many of each
  core::BlockPattern blocks{};  // only causal attention has one
  double scale = 0;             // of the scores; 0: 1 / sqrt(head_dim)

  bool plain() const {
    return causal && window == 0 && softcap == 0 && dropout == 0 && !slopes.defined() &&
           !bias.defined() && blocks.size == 0 && scale == 0;
  }
  double scale_for(int64_t head_dim) const {
    return scale > 0 ? scale : 1.0 / std::sqrt(static_cast<double>(head_dim));
  }
};

// The slopes of ALiBi: a geometric sequence for powers of two; else those of the power below, then
// every other one of the power above.
at::Tensor alibi_slopes(int64_t heads);

// What dropout multiplies the weights by: float32 [batch, heads, time, time] on the CPU.
at::Tensor dropout_factors(const AttentionShape& shape, const AttentionOptions& options,
                           int64_t batch, int64_t time);

// qkv [batch, time, (heads + 2 kv_heads) * head_dim], q then k then v -> [batch, time, heads *
// head_dim]. A token sees its document's tokens up to itself, or all of them on plain ATen.
at::Tensor attention(const at::Tensor& qkv, const AttentionShape& shape, const Positions& positions,
                     const AttentionOptions& options = {});

}  // namespace omnima::ops
