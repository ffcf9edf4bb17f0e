// The experts of a mixture: small mlps, each of which takes the rows that a router sends to it.
#pragma once

#include <vector>

#include "omnima/ops/activation.h"
#include "omnima/ops/router.h"

namespace omnima::ops {

// An mlp without biases: activation(x input^T) output^T.
struct ExpertWeights {
  Weight input, output;
};

// x [rows, width] -> for each row the sum over its experts of their weight times what they make of
// the row. With a capacity an expert takes so many rows at most, first those whose first choice it
// is, then second choices, each in order (GShard: Lepikhin et al. 2021); what does not fit adds
// nothing. 0: all come.
at::Tensor experts(const at::Tensor& x, const Routes& routes,
                   const std::vector<ExpertWeights>& weights, Activation activation,
                   int64_t capacity = 0);

}  // namespace omnima::ops
