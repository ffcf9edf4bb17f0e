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

// qkv [batch, time, (heads + 2 kv_heads) * head_dim], q then k then v -> [batch, time, heads *
// head_dim]. A token sees its document's tokens up to itself.
at::Tensor attention(const at::Tensor& qkv, const AttentionShape& shape,
                     const Positions& positions);

}  // namespace omnima::ops
