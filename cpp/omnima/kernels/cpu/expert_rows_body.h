// The body of expert_rows_<level>.cpp: one source, compiled once for each instruction set.
#include "omnima/kernels/cpu/expert_rows.h"
#include "omnima/kernels/cpu/vector.h"

namespace omnima::kernels::OMNIMA_LEVEL {

template <class T>
void scale(const T* x, float factor, T* y, std::int64_t cols) {
  for_vectors(cols,
              [&](std::int64_t i, auto part) { part.store(y + i, factor * part.load(x + i)); });
}

template <class T>
float dot(const T* a, const T* b, std::int64_t cols) {
  return sum_over_vectors(
      cols, [&](std::int64_t i, auto part) { return part.load(a + i) * part.load(b + i); });
}

template <class T>
void sum(const T* const* rows, std::int64_t count, T* y, std::int64_t cols) {
  for_vectors(cols, [&](std::int64_t i, auto part) {
    Vector total{};
    for (std::int64_t row = 0; row < count; ++row) total += part.load(rows[row] + i);
    part.store(y + i, total);
  });
}

template <class T>
const ExpertRowKernels<T>& expert_row_table() {
  static const ExpertRowKernels<T> table{scale<T>, dot<T>, sum<T>};
  return table;
}
template const ExpertRowKernels<float>& expert_row_table<float>();
template const ExpertRowKernels<bfloat16>& expert_row_table<bfloat16>();

}  // namespace omnima::kernels::OMNIMA_LEVEL
