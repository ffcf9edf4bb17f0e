// How far what a model says of the next tokens is from what a larger one says: both sets of logits
// are made by chunks of rows and never held whole, and the gradient is made while they are at hand.
#pragma once

#include <string>

#include "omnima/ops/weight.h"

namespace omnima::ops {

// forward: KL(teacher, model) (Hinton et al. 2015) | reverse: KL(model, teacher) (Gu et al. 2023) |
// middle: the mean of both against their mixture, Jensen and Shannon's (Agarwal et al. 2023, eq. 1
// with beta 0.5). Of logits over the temperature; the loss is not multiplied by its square.
struct Divergence {
  std::string kind = "forward";
  double temperature = 1.0;
  // Of the model and of the teacher, as LossTerms::softcap.
  double softcap = 0.0, teacher_softcap = 0.0;

  void check() const;
};

// Hidden states [rows, width] and the head that makes logits of them.
struct Speaker {
  at::Tensor hidden;
  Weight head;
};

// labels int64 [rows]: rows with -100 do not count. float32 scalar: the sum of the rows'
// divergences times scale; its gradient is the model's. Both vocabularies must be of one size.
at::Tensor linear_divergence(const Speaker& model, const Speaker& teacher, const at::Tensor& labels,
                             double scale, const Divergence& divergence);

}  // namespace omnima::ops
