#include "omnima/ops/weight.h"

#include <ATen/ops/mm.h>

#include <cstdlib>
#include <cstring>

namespace omnima::ops {

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

void add_outer(at::Tensor& grad, const at::Tensor& dy, const at::Tensor& x) {
  if (dy.scalar_type() == at::kFloat) {
    grad.addmm_(dy.t(), x);
  } else {
    grad.add_(at::mm(dy.t(), x));
  }
}

bool reference_mode() {
  const char* asked = std::getenv("OMNIMA_REFERENCE");
  return asked != nullptr && std::strcmp(asked, "1") == 0;
}

}  // namespace omnima::ops
