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

template <class T>
float loss_and_gradient(T* logits, std::int64_t vocab, std::int64_t label, float scale,
                        float* scratch) {
  const float top = row_maximum(logits, vocab);
  const float sum = sum_of_exponentials(
      logits, vocab, top, [&](std::int64_t i, auto e) { std::memcpy(scratch + i, &e, sizeof(e)); });
  const float row_loss = std::log(sum) + top - to_float(logits[label]);
  const float factor = scale / sum;
  std::int64_t i = 0;
  for (; i + kLanes <= vocab; i += kLanes) store(logits + i, load(scratch + i) * factor);
  for (; i < vocab; ++i) logits[i] = from_float<T>(scratch[i] * factor);
  logits[label] = from_float<T>(scratch[label] * factor - scale);
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
