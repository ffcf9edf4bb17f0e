#include "omnima/ops/linear_cross_entropy.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <numeric>

#include "omnima/core/labels.h"
#include "omnima/kernels/cpu/activation.h"
#include "omnima/kernels/cpu/cross_entropy.h"
#include "omnima/ops/device_ops.h"
#include "omnima/ops/dispatch.h"
#include "omnima/ops/loss_head.h"
#include "omnima/ops/reference.h"

namespace omnima::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Rows a chunk: the logits of a chunk are held at a time, but the weight is packed and its gradient
// rewritten once a chunk. Where threads work side by side, each holds a chunk of its own.
int64_t chunk_rows(int64_t vocab) {
  if (at::in_parallel_region()) return std::clamp<int64_t>((int64_t{1} << 22) / vocab, 512, 4096);
  return std::clamp<int64_t>((int64_t{1} << 23) / vocab, 1024, 4096);
}

// The losses of a chunk's rows; by the rule, the logits become their gradient.
template <class T>
double chunk_loss(const at::Tensor& logits, const int64_t* labels, bool with_gradient, float cap,
                  const kernels::CrossEntropyRule& rule) {
  const int64_t rows = logits.size(0), vocab = logits.size(1);
  std::vector<double> losses(rows);
  at::parallel_for(0, rows, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> scratch(with_gradient ? vocab : 0);
    std::vector<T> capped(with_gradient && cap > 0 ? vocab : 0);
    const auto& kernels = kernels::cross_entropy_kernels<T>();
    const auto& caps = kernels::activation_kernels<T>();
    for (int64_t row = begin; row < end; ++row) {
      T* at = data<T>(logits) + row * vocab;
      if (cap > 0) caps.soft_cap(at, at, vocab, cap);
      std::copy_n(at, capped.size(), capped.data());
      if (labels[row] == core::kIgnoredLabel) {
        if (with_gradient) std::fill(at, at + vocab, T{});
      } else if (with_gradient) {
        losses[row] = kernels.loss_and_gradient(at, vocab, labels[row], rule, scratch.data());
        if (cap > 0) caps.soft_cap_backward(capped.data(), at, at, vocab, cap);
      } else {
        losses[row] = kernels.loss(at, vocab, labels[row]);
      }
    }
  });
  return std::accumulate(losses.begin(), losses.end(), 0.0);
}

void check_labels(const at::Tensor& labels, int64_t vocab) {
  const auto* label = labels.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < labels.numel(); ++i) {
    core::require<core::DataError>(
        label[i] == core::kIgnoredLabel || (label[i] >= 0 && label[i] < vocab), "Label ", label[i],
        " at place ", i, " lies outside the vocabulary of ", vocab, " tokens (",
        core::kIgnoredLabel, " marks places to ignore).");
  }
}

struct LinearCrossEntropyFunction : torch::autograd::Function<LinearCrossEntropyFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& hidden,
                            const at::Tensor& leaf, const Weight& weight, const at::Tensor& labels,
                            double scale, const LossTerms& terms, bool with_gradient) {
    const int64_t rows = hidden.size(0), vocab = weight.compute.size(0);
    const core::Scope scope("linear_cross_entropy.forward",
                            (with_gradient ? 6.0 : 2.0) * hidden.numel() * vocab,
                            (with_gradient ? 2.0 : 1.0) * bytes_of(hidden, weight.compute));
    const LossGradients gradients(hidden, weight, with_gradient);
    const kernels::CrossEntropyRule rule{static_cast<float>(scale),
                                         static_cast<float>(terms.label_smoothing),
                                         static_cast<float>(terms.z_loss)};
    const int64_t share = std::min(rows, chunk_rows(vocab));
    at::Tensor buffer = at::empty({share, vocab}, hidden.options());
    const LossHead head(weight);
    double total = 0;
    for (int64_t start = 0; start < rows; start += share) {
      const int64_t count = std::min(share, rows - start);
      const at::Tensor x = hidden.narrow(0, start, count);
      at::Tensor logits = buffer.narrow(0, 0, count);
      head.forward(logits, x);
      const auto* label = labels.const_data_ptr<int64_t>() + start;
      total += by_dtype(hidden, "linear_cross_entropy", [&]<class T>(T*) {
        return chunk_loss<T>(logits, label, with_gradient || terms.changes_loss(),
                             static_cast<float>(terms.softcap), rule);
      });
      if (!with_gradient) continue;
      head.backward(gradients.of_hidden.narrow(0, start, count), logits);
      if (gradients.of_weight.defined()) add_outer(gradients.of_weight, logits, x);
    }
    gradients.save(context, weight);
    return at::scalar_tensor(total * scale, hidden.options().dtype(at::kFloat));
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const core::Scope scope("linear_cross_entropy.backward");
    return LossGradients::of(context, grads[0], 7);
  }
};

}  // namespace

at::Tensor linear_cross_entropy(const at::Tensor& hidden, const Weight& weight,
                                const at::Tensor& labels, double scale, const LossTerms& terms) {
  core::require(hidden.dim() == 2 && hidden.size(1) == weight.compute.size(1) &&
                    labels.scalar_type() == at::kLong && labels.dim() == 1 &&
                    labels.size(0) == hidden.size(0),
                "linear_cross_entropy takes hidden states [rows, ", weight.compute.size(1),
                "] and an int64 label a row, not the shapes ", hidden.sizes(), " and ",
                labels.sizes(), ".");
  core::require(terms.softcap >= 0, "linear_cross_entropy takes a softcap of at least 0, not ",
                terms.softcap, ".");
  const auto* device = device_ops(hidden);
  if (device != nullptr && terms.none()) {
    return device->linear_cross_entropy(hidden, weight, labels, scale);
  }
  if (runs_plain(hidden)) {
    return reference::linear_cross_entropy(hidden, plain_leaf(weight), labels, scale, terms);
  }
  check_labels(labels, weight.compute.size(0));
  const bool with_gradient =
      at::GradMode::is_enabled() && (hidden.requires_grad() || weight.leaves[0].requires_grad());
  return LinearCrossEntropyFunction::apply(hidden.contiguous(), weight.leaves[0], weight,
                                           labels.contiguous(), scale, terms, with_gradient);
}

}  // namespace omnima::ops
