// The body of cross_entropy_<level>.cpp: one source, compiled once for each instruction set.
#include "omnima/kernels/cpu/cross_entropy.h"
#include "omnima/kernels/cpu/vector_math.h"

namespace omnima::kernels::OMNIMA_LEVEL {

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

template <class T>
float loss(const T* logits, std::int64_t vocab, std::int64_t label) {
  const float top = row_maximum(logits, vocab);
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < vocab; ++i) sum += fast_exp(to_float(logits[i]) - top);
  return std::log(sum) + top - to_float(logits[label]);
}

template <class T>
float loss_and_gradient(T* logits, std::int64_t vocab, std::int64_t label, float scale,
                        float* scratch) {
  const float top = row_maximum(logits, vocab);
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < vocab; ++i) {
    const float e = fast_exp(to_float(logits[i]) - top);
    scratch[i] = e;
    sum += e;
  }
  const float row_loss = std::log(sum) + top - to_float(logits[label]);
  const float factor = scale / sum;
#pragma omp simd
  for (std::int64_t i = 0; i < vocab; ++i) logits[i] = from_float<T>(scratch[i] * factor);
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
