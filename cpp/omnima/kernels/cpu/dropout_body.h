// The body of dropout_<level>.cpp: one source, compiled once for each instruction set.
#include "omnima/kernels/cpu/dropout.h"
#include "omnima/kernels/cpu/vector_math.h"

namespace omnima::kernels::OMNIMA_LEVEL {

// Shifts and multipliers of a 32-bit mixer with little bias (Wellons 2018, "lowbias32").
inline std::uint32_t drawn(std::uint32_t place, std::uint32_t low, std::uint32_t high) {
  std::uint32_t h = place * 0x9e3779b1u + low;
  h = (h ^ (h >> 16)) * 0x7feb352du + high;
  h = (h ^ (h >> 15)) * 0x846ca68bu;
  return h ^ (h >> 16);
}

template <class T>
void apply(const T* x, T* y, std::int64_t count, const DropoutRule& rule) {
  const auto low = static_cast<std::uint32_t>(rule.key);
  const auto high = static_cast<std::uint32_t>(rule.key >> 32);
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    const bool keeps = drawn(static_cast<std::uint32_t>(i), low, high) >= rule.threshold;
    y[i] = from_float<T>(to_float(x[i]) * (keeps ? rule.scale : 0.0f));
  }
}

template <class T>
const DropoutKernels<T>& dropout_table() {
  static const DropoutKernels<T> table{apply<T>};
  return table;
}
template const DropoutKernels<float>& dropout_table<float>();
template const DropoutKernels<bfloat16>& dropout_table<bfloat16>();

}  // namespace omnima::kernels::OMNIMA_LEVEL
