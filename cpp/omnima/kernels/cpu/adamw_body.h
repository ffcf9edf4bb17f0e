// The body of adamw_<level>.cpp: one source, compiled once for each instruction set.
#include "omnima/kernels/cpu/adamw.h"
#include "omnima/kernels/cpu/vector_math.h"

namespace omnima::kernels::OMNIMA_LEVEL {

inline void adamw(float* weight, const float* grad, float* exp_avg, float* exp_avg_sq,
                  bfloat16* shadow, std::int64_t count, const AdamwConstants& c) {
  const float keep = 1.0f - c.lr * c.weight_decay;
  const float step_size = c.lr / c.correction1;
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    const float g = grad[i] * c.grad_scale;
    const float m = c.beta1 * exp_avg[i] + (1.0f - c.beta1) * g;
    const float v = c.beta2 * exp_avg_sq[i] + (1.0f - c.beta2) * g * g;
    exp_avg[i] = m;
    exp_avg_sq[i] = v;
    weight[i] = weight[i] * keep - step_size * m / (std::sqrt(v) / c.correction2 + c.eps);
  }
  if (shadow == nullptr) return;
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) shadow[i] = from_float<bfloat16>(weight[i]);
}

inline double sum_of_squares(const float* x, std::int64_t count) {
  constexpr std::int64_t kBlock = 4096;
  double total = 0;
  for (std::int64_t start = 0; start < count; start += kBlock) {
    const std::int64_t end = start + kBlock < count ? start + kBlock : count;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t i = start; i < end; ++i) sum += x[i] * x[i];
    total += sum;
  }
  return total;
}

const OptimizerKernels& adamw_table() {
  static const OptimizerKernels table{adamw, sum_of_squares};
  return table;
}

}  // namespace omnima::kernels::OMNIMA_LEVEL
