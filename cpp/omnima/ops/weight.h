// A weight as operators see it: the autograd leaves, the values to compute with, and where
// gradients go.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "omnima/ops/held_matrix.h"

namespace omnima::ops {

// Several leaves that lie next to each other in memory (q, k and v; gate and up) act as one matrix.
struct Weight {
  std::vector<at::Tensor> leaves;  // float32, [out_i, in] or [out_i]
  at::Tensor compute;              // [sum of out_i, in]: the leaves themselves or their 16-bit copy
  at::Tensor grad{};  // float32 view for direct accumulation; undefined: through autograd
  // compute^T and compute as pack_right leaves them, where a step packed its weights; else
  // undefined.
  at::Tensor packed_forward{}, packed_backward{};
  // Where the numbers are held in another form. The leaves and `compute` stand in for them: they
  // have type and shape, and nothing but NaN, so that who does not know of this goes wrong loudly.
  std::shared_ptr<const HeldMatrix> held{};

  bool direct() const { return grad.defined(); }
  // Whether no gradient is asked for: the leaves are detached then.
  bool frozen() const { return !leaves.empty() && !leaves[0].requires_grad(); }
};

// What backward returns for the leaves: nothing when the gradient was added to `grad` directly.
std::vector<at::Tensor> leaf_gradients(const std::vector<int64_t>& sizes, const at::Tensor& fused);
std::vector<int64_t> leaf_sizes(const Weight& weight);
// grad += dy^T x, in the precision of the inputs.
void add_outer(const at::Tensor& grad, const at::Tensor& dy, const at::Tensor& x);

// The first leaf for a plain ATen operator; its gradient goes where the weight's own would go. Of a
// matrix that is held otherwise all its numbers, of the type of `compute`.
at::Tensor plain_leaf(const Weight& weight);

// Whether operators on x run their plain ATen meaning: elsewhere than on the CPU, in float16, and
// in reference mode.
bool runs_plain(const at::Tensor& x);

// True when OMNIMA_REFERENCE=1 asks for the plain ATen meaning of every operator.
bool reference_mode();

}  // namespace omnima::ops
