// RMSNorm of every query and key head, as Qwen3 has it (QK-norm: Henry et al. 2020, Dehghani et al.
// 2023).
#pragma once

#include "omnima/ops/attention.h"
#include "omnima/ops/norm.h"

namespace omnima::ops {

// qkv [batch, time, (heads + 2 kv_heads) * head_dim], q then k then v: the same with each head of q
// and k normalised and scaled by a weight [head_dim]; or, where the weights are as wide as all
// heads, with all heads of q as one and all of k (OLMo 2, 2025).
at::Tensor head_norm(const at::Tensor& qkv, const AttentionShape& shape, const NormWeight& queries,
                     const NormWeight& keys);

}  // namespace omnima::ops
