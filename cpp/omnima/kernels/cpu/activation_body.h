// The body of activation_<level>.cpp: one source, compiled once for each instruction set.
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include "omnima/kernels/cpu/activation.h"
#include "omnima/kernels/cpu/vector.h"
#include "omnima/kernels/cpu/vector_exp.h"
#include "omnima/kernels/cpu/vector_math.h"

namespace omnima::kernels::OMNIMA_LEVEL {

constexpr float kLog2e = 1.44269504089f;

// 1 / x for bfloat16: a division takes longer than all the rest of an activation.
inline Vector reciprocal(Vector x) {
#ifdef __AVX512F__
  return _mm512_rcp14_ps(x);
#else
  return 1.0f / x;
#endif
}

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

inline void swiglu_rounded(const float* gate_up, bfloat16* y, std::int64_t width) {
  for_vectors(width, [&](std::int64_t i, auto part) {
    const Vector g = part.load(gate_up + i), power = g * -kLog2e;
    const Vector below = 1.0f + exp2_for<bfloat16>(power > 126.0f ? broadcast(126.0f) : power);
    part.store(y + i, g * reciprocal(below) * part.load(gate_up + width + i));
  });
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

template <bool kByTanh>
inline float gelu(float v) {
  if constexpr (kByTanh) {
    const float t = fast_tanh(kRootTwoOverPi * (v + kCubic * v * v * v));
    return 0.5f * v * (1.0f + t);
  }
  return 0.5f * v * (1.0f + fast_erf(v * kRootHalf));
}

template <bool kByTanh>
inline float gelu_slope(float v) {
  if constexpr (kByTanh) {
    const float t = fast_tanh(kRootTwoOverPi * (v + kCubic * v * v * v));
    const float inner = kRootTwoOverPi * (1.0f + 3.0f * kCubic * v * v);
    return 0.5f * (1.0f + t) + 0.5f * v * (1.0f - t * t) * inner;
  }
  return 0.5f * (1.0f + fast_erf(v * kRootHalf)) + v * kNormalDensity * fast_exp(-0.5f * v * v);
}

template <bool kByTanh, class T>
void gelu_forward_by(const T* x, T* y, std::int64_t count) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) y[i] = from_float<T>(gelu<kByTanh>(to_float(x[i])));
}

template <class T>
void gelu_forward(const T* x, T* y, std::int64_t count, bool by_tanh) {
  by_tanh ? gelu_forward_by<true>(x, y, count) : gelu_forward_by<false>(x, y, count);
}

template <bool kByTanh, class T>
void gelu_backward_by(const T* x, const T* dy, T* dx, std::int64_t count) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    dx[i] = from_float<T>(to_float(dy[i]) * gelu_slope<kByTanh>(to_float(x[i])));
  }
}

template <class T>
void gelu_backward(const T* x, const T* dy, T* dx, std::int64_t count, bool by_tanh) {
  by_tanh ? gelu_backward_by<true>(x, dy, dx, count) : gelu_backward_by<false>(x, dy, dx, count);
}

template <bool kByTanh, class T>
void geglu_forward_by(const T* gate_up, T* y, std::int64_t rows, std::int64_t width) {
  for (std::int64_t row = 0; row < rows; ++row, gate_up += 2 * width, y += width) {
    const T* up = gate_up + width;
#pragma omp simd
    for (std::int64_t i = 0; i < width; ++i) {
      y[i] = from_float<T>(gelu<kByTanh>(to_float(gate_up[i])) * to_float(up[i]));
    }
  }
}

template <class T>
void geglu_forward(const T* gate_up, T* y, std::int64_t rows, std::int64_t width, bool by_tanh) {
  by_tanh ? geglu_forward_by<true>(gate_up, y, rows, width)
          : geglu_forward_by<false>(gate_up, y, rows, width);
}

template <bool kByTanh, class T>
void geglu_backward_by(const T* gate_up, const T* dy, T* dgate_up, std::int64_t rows,
                       std::int64_t width) {
  for (std::int64_t row = 0; row < rows; ++row) {
    const T* up = gate_up + width;
    T* dup = dgate_up + width;
#pragma omp simd
    for (std::int64_t i = 0; i < width; ++i) {
      const float g = to_float(gate_up[i]), u = to_float(up[i]), d = to_float(dy[i]);
      dgate_up[i] = from_float<T>(d * u * gelu_slope<kByTanh>(g));
      dup[i] = from_float<T>(d * gelu<kByTanh>(g));
    }
    gate_up += 2 * width, dgate_up += 2 * width, dy += width;
  }
}

template <class T>
void geglu_backward(const T* gate_up, const T* dy, T* dgate_up, std::int64_t rows,
                    std::int64_t width, bool by_tanh) {
  by_tanh ? geglu_backward_by<true>(gate_up, dy, dgate_up, rows, width)
          : geglu_backward_by<false>(gate_up, dy, dgate_up, rows, width);
}

// A comparison keeps NaN where a maximum would hide it.
inline float relu(float x) { return x <= 0 ? 0.0f : x; }

template <class T>
void relu2_forward(const T* x, T* y, std::int64_t count) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    const float v = relu(to_float(x[i]));
    y[i] = from_float<T>(v * v);
  }
}

template <class T>
void relu2_backward(const T* x, const T* dy, T* dx, std::int64_t count) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    dx[i] = from_float<T>(2.0f * relu(to_float(x[i])) * to_float(dy[i]));
  }
}

template <class T>
void soft_cap(const T* x, T* y, std::int64_t count, float cap) {
  const float inverse = 1.0f / cap;
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    y[i] = from_float<T>(cap * fast_tanh(to_float(x[i]) * inverse));
  }
}

template <class T>
void soft_cap_backward(const T* y, const T* dy, T* dx, std::int64_t count, float cap) {
  const float inverse = 1.0f / cap;
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    const float t = to_float(y[i]) * inverse;
    dx[i] = from_float<T>(to_float(dy[i]) * (1.0f - t * t));
  }
}

template <class T>
const ActivationKernels<T>& activation_table() {
  static const ActivationKernels<T> table{swiglu_forward<T>, swiglu_backward<T>,  swiglu_rounded,
                                          gelu_forward<T>,   gelu_backward<T>,    geglu_forward<T>,
                                          geglu_backward<T>, relu2_forward<T>,    relu2_backward<T>,
                                          soft_cap<T>,       soft_cap_backward<T>};
  return table;
}
template const ActivationKernels<float>& activation_table<float>();
template const ActivationKernels<bfloat16>& activation_table<bfloat16>();

}  // namespace omnima::kernels::OMNIMA_LEVEL
