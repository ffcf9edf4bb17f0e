#include "omnima/optim/gradient.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/linalg_vector_norm.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "omnima/core/scope.h"
#include "omnima/kernels/cpu/adamw.h"
#include "omnima/optim/flat_pass.h"

namespace omnima::optim {

double flat_norm(const at::Tensor& flat) {
  const core::Scope scope("gradient.norm", 0, static_cast<double>(flat.nbytes()));
  if (!flat.is_cpu() || ops::reference_mode()) return at::linalg_vector_norm(flat).item<double>();
  // Blocks of a fixed size, summed in order: the result does not depend on the threads.
  const int64_t blocks = (flat.numel() + kGrain - 1) / kGrain;
  std::vector<double> sums(blocks);
  at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * kGrain, count = std::min(kGrain, flat.numel() - first);
      sums[block] =
          kernels::optimizer_kernels().sum_of_squares(flat.const_data_ptr<float>() + first, count);
    }
  });
  double total = 0;
  for (const double sum : sums) total += sum;
  return std::sqrt(total);
}

void clip_values(const at::Tensor& flat, double limit) {
  const core::Scope scope("gradient.clip", 0, 2.0 * static_cast<double>(flat.nbytes()));
  at::Tensor(flat).clamp_(-limit, limit);
}

void clip_by_weight(nn::Arena& arena, double limit) {
  constexpr double kLeastNorm = 1e-3;  // so that what starts at zero can leave it
  const core::Scope scope("gradient.clip", 0, 12.0 * static_cast<double>(arena.size()));
  const at::Tensor& gradients = arena.gradients();
  for (const auto& parameter : arena.parameters()) {
    const int64_t rows = parameter.is_matrix() ? parameter.size() / parameter.sizes.back() : 1;
    const auto as_rows = [&](const at::Tensor& flat) {
      return flat.narrow(0, parameter.offset, parameter.size()).view({rows, -1});
    };
    const at::Tensor most = at::linalg_vector_norm(as_rows(arena.weights()), 2, -1, true)
                                .clamp_min_(kLeastNorm)
                                .mul_(limit);
    at::Tensor gradient = as_rows(gradients);
    const at::Tensor norm = at::linalg_vector_norm(gradient, 2, -1, true).clamp_min_(1e-30);
    gradient.mul_((most / norm).clamp_max_(1.0));
  }
}

}  // namespace omnima::optim
