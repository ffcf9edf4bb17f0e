// Causal self-attention over a fused projection: rotary turn, grouped heads, document borders.
#pragma once

#include <ATen/core/Tensor.h>

#include "omnima/ops/weight.h"

namespace omnima::ops {

struct AttentionShape {
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
};

// Where the tokens of a batch stand. All undefined: positions 0, 1, … and no turn, one document a
// row.
struct Positions {
  at::Tensor ids;  // int64 [batch, time]: position inside the document; undefined: 0, 1, …
  at::Tensor cos;  // float32 [context, head_dim / 2]; undefined: no rotary turn
  at::Tensor sin;
  at::Tensor
      mask;  // additive float32 [batch, 1, time, time], causal inside a document; undefined: causal
};

// qkv [batch, time, (heads + 2 kv_heads) * head_dim], q then k then v -> [batch, time, heads *
// head_dim]. The CPU version turns q and k inside qkv's memory: qkv must not be read afterwards.
at::Tensor attention(const at::Tensor& qkv, const AttentionShape& shape,
                     const Positions& positions);

}  // namespace omnima::ops
