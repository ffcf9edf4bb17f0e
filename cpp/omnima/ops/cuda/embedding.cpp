#include "omnima/kernels/cuda/embedding.h"

#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include "omnima/ops/cuda/operators.h"
#include "omnima/ops/cuda/seams.h"
#include "omnima/ops/dispatch.h"

namespace omnima::ops::cuda {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// grad[ids[i]] += dy[i], rows of one id in their order: the stable sort fixes it.
void add_rows(const at::Tensor& grad, const at::Tensor& ids, const at::Tensor& dy) {
  const int64_t count = ids.numel(), width = grad.size(1);
  const auto [sorted, order] = at::sort(ids.reshape({-1}), /*stable=*/true, /*dim=*/0,
                                        /*descending=*/false);
  const int64_t chunks =
      (count + kernels::cuda::kEmbeddingChunk - 1) / kernels::cuda::kEmbeddingChunk;
  const at::Tensor partial = at::empty({chunks, width}, grad.options());
  by_dtype(dy, "embedding", [&]<class T>(T*) {
    const kernels::cuda::EmbeddingBackward<T> task{sorted.const_data_ptr<int64_t>(),
                                                   order.const_data_ptr<int64_t>(),
                                                   data<T>(dy),
                                                   partial.data_ptr<float>(),
                                                   grad.data_ptr<float>(),
                                                   count,
                                                   width};
    on_stream(grad, [&](auto stream) { kernels::cuda::embedding_backward(task, stream); });
  });
}

struct EmbeddingFunction : torch::autograd::Function<EmbeddingFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& leaf, const at::Tensor& ids,
                            const Weight& weight) {
    context->saved_data["ids"] = ids;
    context->saved_data["grad"] = weight.grad;
    context->saved_data["rows"] = weight.compute.size(0);
    return at::embedding(weight.compute, ids);
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const at::Tensor ids = context->saved_data["ids"].toTensor(), dy = grads[0].contiguous();
    at::Tensor grad = context->saved_data["grad"].toTensor(), result;
    if (!grad.defined()) {
      result = at::zeros({context->saved_data["rows"].toInt(), dy.size(-1)},
                         dy.options().dtype(at::kFloat));
      grad = result;
    }
    add_rows(grad, ids, dy);
    return {result, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor embedding(const at::Tensor& ids, const Weight& weight) {
  return EmbeddingFunction::apply(weight.leaves[0], ids, weight);
}

}  // namespace omnima::ops::cuda
