// Adafactor (Shazeer and Stern 2018), as torch.optim.Adafactor: a matrix keeps the mean squares of
// its rows and columns instead of one number for each element, and steps are relative to the size
// of the weights. lr is the largest relative step.
#pragma once

#include "omnima/optim/optimizer.h"

namespace omnima::optim {

class Adafactor final : public Optimizer {
 public:
  Adafactor(nn::Arena& arena, const OptimizerOptions& options);
  void update(std::int64_t step, double lr, double grad_scale, bool with_shadow) override;
  Buffers state() const override;

 private:
  struct Place {
    int64_t row = 0, column = 0, single = 0;  // where a parameter's part of each buffer starts
  };
  // The estimate of the squared gradient; a new tensor of the gradient's shape.
  at::Tensor variance_of(const Place& place, const at::Tensor& grad, double newest);

  std::vector<Place> places_;
  at::Tensor row_var_, col_var_, variance_;
};

}  // namespace omnima::optim
