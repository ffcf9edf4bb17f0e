// The body of cross_entropy_<level>.cpp: one source, compiled once for each instruction set.
#include "omnima/kernels/cpu/cross_entropy.h"
#include "omnima/kernels/cpu/vector.h"
#include "omnima/kernels/cpu/vector_exp.h"
#include "omnima/kernels/cpu/vector_math.h"

namespace omnima::kernels::OMNIMA_LEVEL {

constexpr float kLog2e = 1.44269504089f;

template <class T>
float row_maximum(const T* logits, std::int64_t vocab) {
  float top = -INFINITY;
#pragma omp simd reduction(max : top)
  for (std::int64_t i = 0; i < vocab; ++i) {
    const float v = to_float(logits[i]);
    top = v > top ? v : top;
  }
  return top;
}

// The sum of exp(logit - top); each goes to keep(i, value) on the way, as a vector or alone.
template <class T, class F>
float sum_of_exponentials(const T* logits, std::int64_t vocab, float top, F keep) {
  Vector sums{};
  std::int64_t i = 0;
  for (; i + kLanes <= vocab; i += kLanes) {
    const Vector e = exp2_for<float>((load(logits + i) - top) * kLog2e);
    keep(i, e);
    sums += e;
  }
  float sum = sum_of_lanes(sums);
  for (; i < vocab; ++i) {
    const float e = fast_exp(to_float(logits[i]) - top);
    keep(i, e);
    sum += e;
  }
  return sum;
}

template <class T>
float loss(const T* logits, std::int64_t vocab, std::int64_t label) {
  const float top = row_maximum(logits, vocab);
  const float sum = sum_of_exponentials(logits, vocab, top, [](std::int64_t, auto) {});
  return std::log(sum) + top - to_float(logits[label]);
}

// With p = softmax, L = log sum exp and s = label_smoothing: the loss is L - (1 - s) logit[label] -
// s mean(logits) + z_loss L^2 (Szegedy et al. 2016; Chowdhery et al. 2022), its slope
// p (1 + 2 z_loss L) - s / vocab - (1 - s) one_hot.
template <class T>
float loss_and_gradient(T* logits, std::int64_t vocab, std::int64_t label,
                        const CrossEntropyRule& rule, float* scratch) {
  const float top = row_maximum(logits, vocab);
  const float sum = sum_of_exponentials(
      logits, vocab, top, [&](std::int64_t i, auto e) { std::memcpy(scratch + i, &e, sizeof(e)); });
  const float log_sum = std::log(sum) + top;
  const float target = 1.0f - rule.label_smoothing, count = static_cast<float>(vocab);
  float row_loss = log_sum - target * to_float(logits[label]) + rule.z_loss * log_sum * log_sum;
  if (rule.label_smoothing > 0) {
    const float all =
        sum_over_vectors(vocab, [&](std::int64_t j, auto part) { return part.load(logits + j); });
    row_loss -= rule.label_smoothing * all / count;
  }
  const float factor = rule.scale * (1.0f + 2.0f * rule.z_loss * log_sum) / sum;
  const float shift = rule.scale * rule.label_smoothing / count;
  for_vectors(vocab, [&](std::int64_t i, auto part) {
    part.store(logits + i, part.load(scratch + i) * factor - shift);
  });
  logits[label] = from_float<T>(scratch[label] * factor - shift - rule.scale * target);
  return row_loss;
}

template <class T>
const CrossEntropyKernels<T>& cross_entropy_table() {
  static const CrossEntropyKernels<T> table{loss<T>, loss_and_gradient<T>};
  return table;
}
template const CrossEntropyKernels<float>& cross_entropy_table<float>();
template const CrossEntropyKernels<bfloat16>& cross_entropy_table<bfloat16>();

}  // namespace omnima::kernels::OMNIMA_LEVEL
