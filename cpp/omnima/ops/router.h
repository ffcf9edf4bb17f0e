// The router of a mixture of experts (Shazeer et al. 2017): a linear layer and a softmax say which
// few experts a row goes to. Always in float32.
#pragma once

#include "omnima/ops/weight.h"

namespace omnima::ops {

struct RouterOptions {
  int64_t chosen = 2;     // experts of a row
  bool normalise = true;  // their weights sum to 1; else they are what the softmax gives
  bool losses = false;    // whether Routes::losses are wanted
};

struct Routes {
  at::Tensor weights;  // float32 [rows, chosen], differentiable
  at::Tensor experts;  // int64 [rows, chosen], the likeliest first
  // float32 [2], differentiable. The load-balance loss (Fedus et al. 2022, equation 4, for several
  // experts a row): experts * sum over experts of the share of rows that come (these shares sum to
  // `chosen`) times the mean probability; it is at least `chosen` where all are alike. And the
  // z-loss (Zoph et al. 2022, equation 5): the mean square of the rows' log-sum-exp.
  at::Tensor losses;
};

// x [rows, width] in float32 or bfloat16, weight float32 [experts, width].
Routes route(const at::Tensor& x, const Weight& weight, const RouterOptions& options);

// One row: its logits become probabilities; returns their log-sum-exp. Among equals the first wins.
float choose_experts(float* logits, int64_t experts, const RouterOptions& options, int64_t* which,
                     float* weights);

}  // namespace omnima::ops
