#include "omnima/ops/weight.h"

#include <ATen/ops/mm.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cstdlib>
#include <cstring>

#include "omnima/ops/device_ops.h"
#include "omnima/ops/product.h"

namespace omnima::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// The leaf as it is; its gradient is added to a buffer instead of flowing on.
struct DirectLeafFunction : torch::autograd::Function<DirectLeafFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& leaf,
                            const at::Tensor& grad) {
    context->saved_data["grad"] = grad;
    return leaf.view_as(leaf);
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    context->saved_data["grad"].toTensor().add_(grads[0]);
    return {at::Tensor(), at::Tensor()};
  }
};

}  // namespace

std::vector<int64_t> leaf_sizes(const Weight& weight) {
  std::vector<int64_t> sizes;
  for (const auto& leaf : weight.leaves) sizes.push_back(leaf.size(0));
  return sizes;
}

std::vector<at::Tensor> leaf_gradients(const std::vector<int64_t>& sizes, const at::Tensor& fused) {
  std::vector<at::Tensor> gradients;
  int64_t start = 0;
  for (const int64_t size : sizes) {
    gradients.push_back(fused.defined() ? fused.narrow(0, start, size) : at::Tensor());
    start += size;
  }
  return gradients;
}

void add_outer(const at::Tensor& grad, const at::Tensor& dy, const at::Tensor& x) {
  at::Tensor sum = grad;
  if (const auto* device = device_ops(dy)) return device->add_outer(sum, dy, x);
  if (!runs_plain(dy)) {
    add_product(grad, dy.t(), x);
  } else if (dy.scalar_type() == at::kFloat) {
    sum.addmm_(dy.t(), x);
  } else {
    grad.add_(at::mm(dy.t(), x));
  }
}

at::Tensor plain_leaf(const Weight& weight) {
  if (weight.held) return numbers_of(*weight.held, weight.compute.scalar_type()).clone();
  if (weight.frozen()) return weight.leaves[0];
  return weight.direct() ? DirectLeafFunction::apply(weight.leaves[0], weight.grad)
                         : weight.leaves[0];
}

bool runs_plain(const at::Tensor& x) {
  return !x.is_cpu() || x.scalar_type() == at::kHalf || reference_mode();
}

bool reference_mode() {
  const char* asked = std::getenv("OMNIMA_REFERENCE");
  return asked != nullptr && std::strcmp(asked, "1") == 0;
}

}  // namespace omnima::ops
