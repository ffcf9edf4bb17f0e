// The body of factors_<level>.cpp: one source, compiled once for each instruction set.
#include "omnima/kernels/cpu/factors.h"
#include "omnima/kernels/cpu/vector.h"

namespace omnima::kernels::OMNIMA_LEVEL {

template <class T>
void apply(const float* factor, T* x, std::int64_t count) {
  for_vectors(count, [&](std::int64_t i, auto part) {
    part.store(x + i, part.load(x + i) * part.load(factor + i));
  });
}

template <class T>
void backward(const FactorGradient<T>& row, std::int64_t count) {
  for_vectors(count, [&](std::int64_t i, auto part) {
    const Vector dy = part.load(row.dy + i);
    part.store(row.products + i, part.load(row.products + i) + dy * part.load(row.kept + i));
    part.store(row.totals + i, part.load(row.totals + i) + dy);
    part.store(row.dz + i, dy * part.load(row.factor + i));
  });
}

template <class T>
const FactorKernels<T>& factor_table() {
  static const FactorKernels<T> table{apply<T>, backward<T>};
  return table;
}
template const FactorKernels<float>& factor_table<float>();
template const FactorKernels<bfloat16>& factor_table<bfloat16>();

}  // namespace omnima::kernels::OMNIMA_LEVEL
