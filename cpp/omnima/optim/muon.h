// Muon (Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"): a hidden
// matrix moves along its mean gradient made nearly orthogonal by Newton-Schulz iterations.
// Embeddings, the output projection and vectors are AdamW's. The change of a matrix is scaled to
// the size of AdamW's (Liu et al. 2025, "Muon is Scalable for LLM Training", equation 4), so that
// both share one learning rate.
#pragma once

#include "omnima/optim/optimizer.h"

namespace omnima::optim {

class Muon final : public Optimizer {
 public:
  Muon(nn::Arena& arena, const OptimizerOptions& options);
  void update(std::int64_t step, double lr, double grad_scale, bool with_shadow) override;
  Buffers state() const override;

 private:
  void turn(const nn::Parameter& parameter, const Span& span, at::Tensor mean, double lr,
            double grad_scale);

  std::vector<int64_t> place_;  // of a parameter in exp_avg_sq_; -1: a hidden matrix
  at::Tensor exp_avg_;          // for hidden matrices the momentum
  at::Tensor exp_avg_sq_;       // of AdamW's parameters only
};

// Nearly the orthogonal factor U V^T of a matrix U S V^T: five quintic iterations, singular values
// end between about 0.7 and 1.2. Computed in the number format asked for.
at::Tensor orthogonalized(const at::Tensor& matrix, at::ScalarType type);

}  // namespace omnima::optim
