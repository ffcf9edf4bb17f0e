// The body of rotary_<level>.cpp: one source, compiled once for each instruction set.
#include "omnima/kernels/cpu/rotary.h"
#include "omnima/kernels/cpu/vector_math.h"

namespace omnima::kernels::OMNIMA_LEVEL {

template <class T>
void rotate(T* x, std::int64_t heads, std::int64_t head_dim, const float* cos, const float* sin,
            float sign) {
  const std::int64_t half = head_dim / 2;
  for (std::int64_t head = 0; head < heads; ++head, x += head_dim) {
    T* y = x + half;
#pragma omp simd
    for (std::int64_t i = 0; i < half; ++i) {
      const float a = to_float(x[i]), b = to_float(y[i]), s = sign * sin[i];
      x[i] = from_float<T>(a * cos[i] - b * s);
      y[i] = from_float<T>(b * cos[i] + a * s);
    }
  }
}

template <class T>
const RotaryKernels<T>& rotary_table() {
  static const RotaryKernels<T> table{rotate<T>};
  return table;
}
template const RotaryKernels<float>& rotary_table<float>();
template const RotaryKernels<bfloat16>& rotary_table<bfloat16>();

}  // namespace omnima::kernels::OMNIMA_LEVEL
