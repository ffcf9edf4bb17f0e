#include "omnima/ops/embedding.h"

#include <ATen/ops/embedding.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include "omnima/ops/device_ops.h"
#include "omnima/ops/dispatch.h"

namespace omnima::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// grad[ids[i]] += dy[i]; columns are divided between threads, so that the order of sums is fixed.
void add_rows(at::Tensor& grad, const at::Tensor& ids, const at::Tensor& dy) {
  const at::Tensor rows = dy.reshape({ids.numel(), grad.size(1)}).to(at::kFloat).contiguous();
  const at::Tensor index = ids.reshape({-1}).contiguous();
  if (!grad.is_cpu()) {
    grad.index_add_(0, index, rows);
    return;
  }
  const auto* id = index.const_data_ptr<int64_t>();
  const auto* source = rows.const_data_ptr<float>();
  auto* target = grad.data_ptr<float>();
  const int64_t width = grad.size(1), count = ids.numel();
  at::parallel_for(0, width, 64, [&](int64_t begin, int64_t end) {
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t j = begin; j < end; ++j) target[id[i] * width + j] += source[i * width + j];
    }
  });
}

struct EmbeddingFunction : torch::autograd::Function<EmbeddingFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& leaf, const at::Tensor& ids,
                            const Weight& weight) {
    const core::Scope scope(
        "embedding.forward", 0,
        2.0 * ids.numel() * weight.compute.size(1) * weight.compute.element_size());
    context->saved_data["ids"] = ids;
    context->saved_data["grad"] = weight.grad;
    context->saved_data["rows"] = weight.compute.size(0);
    return at::embedding(weight.compute, ids);
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const core::Scope scope("embedding.backward", 0, bytes_of(grads[0]) + 8.0 * grads[0].numel());
    at::Tensor grad = context->saved_data["grad"].toTensor();
    const at::Tensor ids = context->saved_data["ids"].toTensor();
    at::Tensor result;
    if (!grad.defined()) {
      result = at::zeros({context->saved_data["rows"].toInt(), grads[0].size(-1)},
                         grads[0].options().dtype(at::kFloat));
      grad = result;
    }
    add_rows(grad, ids, grads[0]);
    return {result, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor embedding(const at::Tensor& ids, const Weight& weight) {
  core::require(ids.scalar_type() == at::kLong, "embedding takes int64 ids, not ",
                c10::toString(ids.scalar_type()), ".");
  if (weight.held) {
    const core::Scope scope("embedding.forward", 0, 2.0 * ids.numel() * weight.held->columns());
    auto sizes = ids.sizes().vec();
    sizes.push_back(weight.held->columns());
    return rows_of(*weight.held, ids.reshape({-1}), weight.compute.scalar_type()).view(sizes);
  }
  if (const auto* device = device_ops(weight.compute)) return device->embedding(ids, weight);
  return EmbeddingFunction::apply(weight.leaves[0], ids, weight);
}

}  // namespace omnima::ops
