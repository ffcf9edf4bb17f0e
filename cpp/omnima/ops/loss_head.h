// The head of a model in losses that are computed by chunks of its logits: the products with its
// weight, and gradients that are made together with the loss.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/custom_function.h>

#include <memory>

#include "omnima/ops/weight.h"

namespace omnima::ops {

// The products with a weight [vocab, width]. Of one that is held otherwise a few rows at a time
// become numbers.
class LossHead {
 public:
  explicit LossHead(const Weight& weight);

  int64_t vocab() const { return vocab_; }
  // logits = x W^T
  void forward(const at::Tensor& logits, const at::Tensor& x) const;
  // dx = dlogits W
  void backward(const at::Tensor& dx, const at::Tensor& dlogits) const;

 private:
  template <class F>
  void for_parts(F f) const;

  at::Tensor numbers_, packed_forward_, packed_backward_;  // numbers_ undefined: made in parts
  std::shared_ptr<const HeldMatrix> held_;
  at::ScalarType type_ = at::kFloat;
  int64_t vocab_, part_ = 0;
};

// What a loss and its gradients are made in, in one pass over the chunks.
struct LossGradients {
  LossGradients(const at::Tensor& hidden, const Weight& weight, bool with_gradient);

  at::Tensor of_hidden;  // as hidden, unwritten; undefined: without gradients
  at::Tensor of_weight;  // float32, to be added to; undefined: it does not learn

  void save(torch::autograd::AutogradContext* context, const Weight& weight) const;
  // What backward returns for `inputs` inputs, of which the first two are the hidden states and the
  // weight's leaf, where the loss counts `factor` times.
  static torch::autograd::variable_list of(torch::autograd::AutogradContext* context,
                                           const at::Tensor& factor, std::size_t inputs);
};

}  // namespace omnima::ops
