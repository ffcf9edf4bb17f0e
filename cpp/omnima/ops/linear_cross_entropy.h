// Cross-entropy of hidden states against an output projection, by chunks of rows: the full logits
// are never held, and the gradient is made while a chunk's logits are at hand.
#pragma once

#include "omnima/ops/weight.h"

namespace omnima::ops {

// What is added to the cross-entropy of a row: a share of the target spread over the vocabulary
// (Szegedy et al. 2016), and a multiple of the squared log of the softmax's sum, which keeps logits
// small (Chowdhery et al. 2022).
struct LossTerms {
  double label_smoothing = 0.0;
  double z_loss = 0.0;
  // Before all: logits become softcap * tanh(logit / softcap) (Gemma 2, 2024); 0: they stay.
  double softcap = 0.0;

  bool changes_loss() const { return label_smoothing > 0.0 || z_loss > 0.0; }
  bool none() const { return !changes_loss() && softcap == 0.0; }
};

// hidden [rows, width], labels int64 [rows] (-100 is ignored) -> float32 scalar: the sum of the
// rows' losses times scale.
at::Tensor linear_cross_entropy(const at::Tensor& hidden, const Weight& weight,
                                const at::Tensor& labels, double scale,
                                const LossTerms& terms = {});

}  // namespace omnima::ops
