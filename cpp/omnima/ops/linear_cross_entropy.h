// Cross-entropy of hidden states against an output projection, by chunks of rows: the full logits
// are never held, and the gradient is made while a chunk's logits are at hand.
#pragma once

#include "omnima/ops/weight.h"

namespace omnima::ops {

// hidden [rows, width], labels int64 [rows] (-100 is ignored) -> float32 scalar: the sum of the
// rows' losses times scale.
at::Tensor linear_cross_entropy(const at::Tensor& hidden, const Weight& weight,
                                const at::Tensor& labels, double scale);

}  // namespace omnima::ops
