// The body of activation_<level>.cpp: one source, compiled once for each instruction set.
#include "omnima/kernels/cpu/activation.h"
#include "omnima/kernels/cpu/vector.h"
#include "omnima/kernels/cpu/vector_exp.h"
#include "omnima/kernels/cpu/vector_math.h"

namespace omnima::kernels::OMNIMA_LEVEL {

constexpr float kLog2e = 1.44269504089f;

inline Vector sigmoid(Vector x) {
  const Vector power = x * -kLog2e;
  return 1.0f / (1.0f + exp2_for<float>(power > 126.0f ? broadcast(126.0f) : power));
}

template <class T>
void swiglu_forward(const T* gate_up, T* y, std::int64_t rows, std::int64_t width) {
  for (std::int64_t row = 0; row < rows; ++row, gate_up += 2 * width, y += width) {
    const T* up = gate_up + width;
    std::int64_t i = 0;
    for (; i + kLanes <= width; i += kLanes) {
      const Vector g = load(gate_up + i);
      store(y + i, g * sigmoid(g) * load(up + i));
    }
    for (; i < width; ++i) {
      const float g = to_float(gate_up[i]);
      y[i] = from_float<T>(g * fast_sigmoid(g) * to_float(up[i]));
    }
  }
}

template <class T>
void swiglu_backward(const T* gate_up, const T* dy, T* dgate_up, std::int64_t rows,
                     std::int64_t width) {
  for (std::int64_t row = 0; row < rows; ++row) {
    const T* up = gate_up + width;
    T* dup = dgate_up + width;
    std::int64_t i = 0;
    for (; i + kLanes <= width; i += kLanes) {
      const Vector g = load(gate_up + i), u = load(up + i), d = load(dy + i), s = sigmoid(g);
      store(dgate_up + i, d * u * s * (1.0f + g * (1.0f - s)));
      store(dup + i, d * g * s);
    }
    for (; i < width; ++i) {
      const float g = to_float(gate_up[i]), u = to_float(up[i]), d = to_float(dy[i]);
      const float s = fast_sigmoid(g);
      dgate_up[i] = from_float<T>(d * u * s * (1.0f + g * (1.0f - s)));
      dup[i] = from_float<T>(d * g * s);
    }
    gate_up += 2 * width, dgate_up += 2 * width, dy += width;
  }
}

constexpr float kRootTwoOverPi = 0.7978845608f;
constexpr float kCubic = 0.044715f;
constexpr float kRootHalf = 0.7071067812f;
constexpr float kNormalDensity = 0.3989422804f;  // 1 / sqrt(2 pi)

template <class T>
void gelu_forward(const T* x, T* y, std::int64_t count, bool by_tanh) {
  if (by_tanh) {
#pragma omp simd
    for (std::int64_t i = 0; i < count; ++i) {
      const float v = to_float(x[i]);
      const float t = fast_tanh(kRootTwoOverPi * (v + kCubic * v * v * v));
      y[i] = from_float<T>(0.5f * v * (1.0f + t));
    }
    return;
  }
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    const float v = to_float(x[i]);
    y[i] = from_float<T>(0.5f * v * (1.0f + fast_erf(v * kRootHalf)));
  }
}

template <class T>
void gelu_backward(const T* x, const T* dy, T* dx, std::int64_t count, bool by_tanh) {
  if (by_tanh) {
#pragma omp simd
    for (std::int64_t i = 0; i < count; ++i) {
      const float v = to_float(x[i]);
      const float t = fast_tanh(kRootTwoOverPi * (v + kCubic * v * v * v));
      const float inner = kRootTwoOverPi * (1.0f + 3.0f * kCubic * v * v);
      const float slope = 0.5f * (1.0f + t) + 0.5f * v * (1.0f - t * t) * inner;
      dx[i] = from_float<T>(to_float(dy[i]) * slope);
    }
    return;
  }
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    const float v = to_float(x[i]);
    const float slope =
        0.5f * (1.0f + fast_erf(v * kRootHalf)) + v * kNormalDensity * fast_exp(-0.5f * v * v);
    dx[i] = from_float<T>(to_float(dy[i]) * slope);
  }
}

template <class T>
const ActivationKernels<T>& activation_table() {
  static const ActivationKernels<T> table{swiglu_forward<T>, swiglu_backward<T>, gelu_forward<T>,
                                          gelu_backward<T>};
  return table;
}
template const ActivationKernels<float>& activation_table<float>();
template const ActivationKernels<bfloat16>& activation_table<bfloat16>();

}  // namespace omnima::kernels::OMNIMA_LEVEL
