#include "omnima/ops/linear_divergence.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/logaddexp.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/square.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>

#include "omnima/core/error.h"
#include "omnima/core/field.h"
#include "omnima/core/labels.h"
#include "omnima/core/scope.h"
#include "omnima/ops/loss_head.h"
#include "omnima/ops/reference.h"

namespace omnima::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// About eight tensors of a chunk's logits in float32 are held at a time: 64 MB.
int64_t chunk_rows(int64_t vocab) {
  return std::clamp<int64_t>((int64_t{1} << 21) / vocab, 16, 1024);
}

// float32 [rows, vocab].
at::Tensor logits_of(const at::Tensor& x, const LossHead& head, double softcap) {
  const at::Tensor made = at::empty({x.size(0), head.vocab()}, x.options());
  head.forward(made, x);
  const at::Tensor wide = made.to(at::kFloat);
  return softcap > 0 ? wide.div_(softcap).tanh_().mul_(softcap) : wide;
}

// Of each row the divergence, and its slope by the model's logits before the temperature and the
// cap.
struct OfRows {
  at::Tensor values, slopes;  // float32 [rows, 1] and [rows, vocab]
};

OfRows of_rows(const at::Tensor& logits, const at::Tensor& taught, const Divergence& divergence) {
  const double cold = 1.0 / divergence.temperature;
  const at::Tensor mine = at::log_softmax(logits * cold, 1);
  const at::Tensor theirs = at::log_softmax(taught * cold, 1);
  const at::Tensor p = mine.exp();
  OfRows made;
  if (divergence.kind == "forward") {
    const at::Tensor q = theirs.exp();
    made.values = (q * (theirs - mine)).sum(1, true);
    made.slopes = p - q;
  } else {
    // By a log probability the slope of the value is p * gain, so by a logit p * (gain - sum).
    const bool reverse = divergence.kind == "reverse";
    const at::Tensor mixed = reverse ? theirs : at::logaddexp(mine, theirs).sub_(std::log(2.0));
    const at::Tensor gain = (mine - mixed).mul_(reverse ? 1.0 : 0.5);
    const at::Tensor sum = (p * gain).sum(1, true);
    made.values = reverse ? sum : sum + (theirs.exp() * (theirs - mixed)).sum(1, true).mul_(0.5);
    made.slopes = p * (gain - sum);
  }
  made.slopes.mul_(cold);
  if (divergence.softcap > 0) {
    made.slopes.mul_(1.0 - (logits / divergence.softcap).square());
  }
  return made;
}

struct LinearDivergenceFunction : torch::autograd::Function<LinearDivergenceFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& hidden,
                            const at::Tensor& leaf, const Weight& weight, const Speaker& teacher,
                            const at::Tensor& labels, double scale, const Divergence& divergence,
                            bool with_gradient) {
    const int64_t rows = hidden.size(0), vocab = weight.compute.size(0);
    const core::Scope scope("linear_divergence.forward",
                            (with_gradient ? 6.0 : 2.0) * hidden.numel() * vocab);
    const LossGradients gradients(hidden, weight, with_gradient);
    const LossHead head(weight), teachers_head(teacher.head);
    double total = 0;
    const int64_t share = std::min(rows, chunk_rows(vocab));
    for (int64_t start = 0; start < rows; start += share) {
      const int64_t count = std::min(share, rows - start);
      const at::Tensor x = hidden.narrow(0, start, count);
      const at::Tensor logits = logits_of(x, head, divergence.softcap);
      const at::Tensor taught = logits_of(teacher.hidden.narrow(0, start, count), teachers_head,
                                          divergence.teacher_softcap);
      const at::Tensor counted =
          labels.narrow(0, start, count).ne(core::kIgnoredLabel).to(at::kFloat).unsqueeze(1);
      OfRows made = of_rows(logits, taught, divergence);
      total += (made.values * counted).sum(at::kDouble).item<double>();
      if (!with_gradient) continue;
      const at::Tensor slopes = made.slopes.mul_(counted * scale).to(hidden.scalar_type());
      head.backward(gradients.of_hidden.narrow(0, start, count), slopes);
      if (gradients.of_weight.defined()) add_outer(gradients.of_weight, slopes, x);
    }
    gradients.save(context, weight);
    return at::scalar_tensor(total * scale, hidden.options().dtype(at::kFloat));
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    return LossGradients::of(context, grads[0], 8);
  }
};

void check_speaker(const Speaker& speaker, const at::Tensor& labels) {
  core::require(speaker.hidden.dim() == 2 &&
                    speaker.hidden.size(1) == speaker.head.compute.size(1) && labels.dim() == 1 &&
                    labels.scalar_type() == at::kLong && labels.size(0) == speaker.hidden.size(0),
                "linear_divergence takes hidden states [rows, ", speaker.head.compute.size(1),
                "] and an int64 label a row, not the shapes ", speaker.hidden.sizes(), " and ",
                labels.sizes(), ".");
}

}  // namespace

void Divergence::check() const {
  core::check_field({"divergence",
                     std::string("forward"),
                     "how far two distributions are apart",
                     0,
                     0,
                     {"forward", "reverse", "middle"}},
                    kind);
  core::check_field({"temperature", 1.0, "that logits are divided by", 1e-3, 1e3}, temperature);
}

at::Tensor linear_divergence(const Speaker& model, const Speaker& teacher, const at::Tensor& labels,
                             double scale, const Divergence& divergence) {
  divergence.check();
  check_speaker(model, labels);
  check_speaker(teacher, labels);
  const int64_t mine = model.head.compute.size(0), theirs = teacher.head.compute.size(0);
  core::require<core::ConfigError>(mine == theirs, "The model has a vocabulary of ", mine,
                                   " tokens, its teacher one of ", theirs,
                                   ": they must be the same.");
  if (runs_plain(model.hidden)) {
    return reference::linear_divergence(model.hidden, plain_leaf(model.head), teacher.hidden,
                                        plain_leaf(teacher.head), labels, scale, divergence);
  }
  const at::Tensor& leaf = model.head.leaves[0];
  const bool with_gradient =
      at::GradMode::is_enabled() && (model.hidden.requires_grad() || leaf.requires_grad());
  return LinearDivergenceFunction::apply(model.hidden.contiguous(), leaf, model.head,
                                         Speaker{teacher.hidden.contiguous(), teacher.head},
                                         labels.contiguous(), scale, divergence, with_gradient);
}

}  // namespace omnima::ops
