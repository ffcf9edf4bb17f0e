// The body of logits_<level>.cpp: one source, compiled once for each instruction set.
#include "omnima/kernels/cpu/logits.h"
#include "omnima/kernels/cpu/vector_math.h"

namespace omnima::kernels::OMNIMA_LEVEL {

bool all_finite(const float* logits, std::int64_t count) {
  constexpr std::uint32_t kExponent = 0x7f800000u;
  std::uint32_t bad = 0;
#pragma omp simd reduction(| : bad)
  for (std::int64_t i = 0; i < count; ++i) {
    const auto bits = std::bit_cast<std::uint32_t>(logits[i]);
    bad |= (bits & kExponent) == kExponent ? 1u : 0u;
  }
  return bad == 0;
}

float largest(const float* logits, std::int64_t count) {
  float most = logits[0];
#pragma omp simd reduction(max : most)
  for (std::int64_t i = 0; i < count; ++i) most = logits[i] > most ? logits[i] : most;
  return most;
}

double softmax_weights(const float* logits, float most, float* weights, std::int64_t count) {
  constexpr float kLeast = -87.0f;  // e^-87 is among the smallest normal numbers
  double total = 0;
#pragma omp simd reduction(+ : total)
  for (std::int64_t i = 0; i < count; ++i) {
    const float gap = logits[i] - most;
    const float power = fast_exp(gap);
    const float weight = gap < kLeast ? 0.0f : power;
    weights[i] = weight;
    total += static_cast<double>(weight);
  }
  return total;
}

const LogitKernels& logit_table() {
  static const LogitKernels table{all_finite, largest, softmax_weights};
  return table;
}

}  // namespace omnima::kernels::OMNIMA_LEVEL
