// A running mean of the weights (EMA), and the exchange of the weights that are trained for those
// that are evaluated and saved.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "omnima/optim/optimizer.h"

namespace omnima::train {

class AveragedWeights {
 public:
  // decay: what the mean keeps at each step; 0: there is no mean.
  AveragedWeights(nn::Arena& arena, double decay);

  // Takes in the weights after a step, counted from 1. Early steps count for more: the mean keeps
  // min(decay, (1 + step) / (10 + step)).
  void take_in(std::int64_t step);
  const at::Tensor& mean() const { return mean_; }  // undefined without one

  // Puts the given weights into the model until restore(), which brings back the trained ones.
  void show(const at::Tensor& weights);
  void restore();
  bool shows() const { return trained_.defined(); }
  // The weights that are trained, wherever they are.
  const at::Tensor& trained() const { return shows() ? trained_ : arena_.weights(); }

 private:
  nn::Arena& arena_;
  const double decay_;
  at::Tensor mean_;
  at::Tensor trained_;  // while others are shown
};

}  // namespace omnima::train
