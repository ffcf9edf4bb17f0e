#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "omnima/kernels/cuda/cross_entropy.h"
#include "omnima/ops/cuda/operators.h"
#include "omnima/ops/cuda/seams.h"
#include "omnima/ops/dispatch.h"

namespace omnima::ops::cuda {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// 256 MiB in bfloat16: products of this size fill the largest GPU, and at small vocabularies one
// chunk holds all.
constexpr int64_t kMostLogits = int64_t{1} << 27;
constexpr int64_t kTile = 128;  // rows of a product's tile

int64_t up_to_multiple(int64_t x, int64_t of) { return (x + of - 1) / of * of; }

struct LinearCrossEntropyFunction : torch::autograd::Function<LinearCrossEntropyFunction> {
  struct Options {
    double scale;
    bool with_gradient;
    int64_t most_logits;
  };

  static at::Tensor forward(AutogradContext* context, const at::Tensor& hidden,
                            const at::Tensor& leaf, const Weight& weight, const at::Tensor& labels,
                            const Options& options) {
    const int64_t rows = hidden.size(0), vocab = weight.compute.size(0);
    const auto real = hidden.options().dtype(at::kFloat);
    at::Tensor dhidden, dweight;
    if (options.with_gradient) {
      dhidden = at::empty_like(hidden);
      dweight = weight.direct() ? weight.grad : at::zeros(weight.compute.sizes(), real);
    }
    const int64_t share = chunk_rows(rows, vocab, options.most_logits);
    // Rows of logits begin at 16 bytes, whatever the vocabulary.
    const at::Tensor buffer = at::empty({share, up_to_multiple(vocab, 8)}, hidden.options());
    const at::Tensor losses = at::empty({share}, real), total = at::zeros({}, real);
    for (int64_t start = 0; start < rows; start += share) {
      const int64_t count = std::min(share, rows - start);
      const at::Tensor x = hidden.narrow(0, start, count);
      at::Tensor logits = buffer.narrow(0, 0, count).narrow(1, 0, vocab);
      at::mm_out(logits, x, weight.compute.t());
      by_dtype(hidden, "linear_cross_entropy", [&]<class T>(T*) {
        const kernels::cuda::CrossEntropyTask<T> task{data<T>(logits),
                                                      labels.const_data_ptr<int64_t>() + start,
                                                      losses.data_ptr<float>(),
                                                      count,
                                                      vocab,
                                                      buffer.size(1),
                                                      static_cast<float>(options.scale),
                                                      options.with_gradient};
        on_stream(hidden, [&](auto stream) {
          kernels::cuda::cross_entropy(task, stream);
          kernels::cuda::add_losses(losses.const_data_ptr<float>(), count,
                                    static_cast<float>(options.scale), total.data_ptr<float>(),
                                    stream);
        });
      });
      if (!options.with_gradient) continue;
      at::Tensor dx = dhidden.narrow(0, start, count);
      at::mm_out(dx, logits, weight.compute);
      add_outer(dweight, logits, x);
    }
    context->saved_data["dhidden"] = dhidden;
    context->saved_data["dweight"] = weight.direct() ? at::Tensor() : dweight;
    return total;
  }

  // In a training step the gradient was made for a factor of one, and the weight's is in place.
  static variable_list backward(AutogradContext* context, variable_list grads) {
    const at::Tensor dhidden = context->saved_data["dhidden"].toTensor();
    const at::Tensor dweight = context->saved_data["dweight"].toTensor();
    const at::Tensor factor = grads[0], none;
    if (!dweight.defined()) return {dhidden, none, none, none, none};
    return {dhidden.mul(factor.to(dhidden.scalar_type())), dweight.mul(factor), none, none, none};
  }
};

}  // namespace

int64_t chunk_rows(int64_t rows, int64_t vocab, int64_t most_logits) {
  const int64_t most = std::max(kTile, most_logits / std::max<int64_t>(1, vocab) / kTile * kTile);
  if (rows <= most) return std::max<int64_t>(1, rows);
  const int64_t chunks = (rows + most - 1) / most;
  return std::min(most, up_to_multiple((rows + chunks - 1) / chunks, kTile));
}

at::Tensor linear_cross_entropy_by(const at::Tensor& hidden, const Weight& weight,
                                   const at::Tensor& labels, double scale, int64_t most_logits) {
  const bool with_gradient =
      c10::GradMode::is_enabled() && (hidden.requires_grad() || weight.leaves[0].requires_grad());
  return LinearCrossEntropyFunction::apply(
      hidden.contiguous(), weight.leaves[0], weight, labels.contiguous(),
      LinearCrossEntropyFunction::Options{scale, with_gradient, most_logits});
}

at::Tensor linear_cross_entropy(const at::Tensor& hidden, const Weight& weight,
                                const at::Tensor& labels, double scale) {
  return linear_cross_entropy_by(hidden, weight, labels, scale, kMostLogits);
}

}  // namespace omnima::ops::cuda
