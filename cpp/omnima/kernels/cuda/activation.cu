// Element-wise: 16 bytes a thread and access, a tail of single elements at the end.
#include "omnima/kernels/cuda/activation.h"
#include "omnima/kernels/cuda/device.h"

namespace omnima::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr float kRootTwoOverPi = 0.7978845608f;
constexpr float kCubic = 0.044715f;
constexpr float kRootHalf = 0.7071067812f;
constexpr float kNormalDensity = 0.3989422804f;  // 1 / sqrt(2 pi)

__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + __expf(-x)); }

__device__ inline std::int64_t global_thread() {
  return static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
}

__device__ inline float gelu(float x, bool by_tanh) {
  if (by_tanh) return 0.5f * x * (1.0f + tanhf(kRootTwoOverPi * (x + kCubic * x * x * x)));
  return 0.5f * x * (1.0f + erff(kRootHalf * x));
}

__device__ inline float gelu_slope(float x, bool by_tanh) {
  if (by_tanh) {
    const float t = tanhf(kRootTwoOverPi * (x + kCubic * x * x * x));
    const float inner = kRootTwoOverPi * (1.0f + 3.0f * kCubic * x * x);
    return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * inner;
  }
  return 0.5f * (1.0f + erff(kRootHalf * x)) + x * kNormalDensity * __expf(-0.5f * x * x);
}

// A thread for each pack of W columns of a row; `packs` = width / W.
template <class T, int W>
__global__ void __launch_bounds__(kThreads)
    swiglu_forward_packs(const T* gate_up, T* y, std::int64_t rows, std::int64_t packs) {
  const std::int64_t index = global_thread();
  if (index >= rows * packs) return;
  const std::int64_t row = index / packs, col = (index - row * packs) * W;
  const T* gate = gate_up + 2 * row * packs * W + col;
  float g[W], u[W];
  load<W>(gate, g);
  load<W>(gate + packs * W, u);
#pragma unroll
  for (int i = 0; i < W; ++i) g[i] *= sigmoid(g[i]) * u[i];
  store<W>(y + index * W, g);
}

template <class T, int W>
__global__ void __launch_bounds__(kThreads)
    swiglu_backward_packs(const T* gate_up, const T* dy, T* dgate_up, std::int64_t rows,
                          std::int64_t packs) {
  const std::int64_t index = global_thread();
  if (index >= rows * packs) return;
  const std::int64_t row = index / packs, col = (index - row * packs) * W;
  const std::int64_t gate = 2 * row * packs * W + col, up = gate + packs * W;
  float g[W], u[W], d[W];
  load<W>(gate_up + gate, g);
  load<W>(gate_up + up, u);
  load<W>(dy + index * W, d);
#pragma unroll
  for (int i = 0; i < W; ++i) {
    const float s = sigmoid(g[i]), du = d[i] * g[i] * s;
    g[i] = d[i] * u[i] * s * (1.0f + g[i] * (1.0f - s));
    u[i] = du;
  }
  store<W>(dgate_up + gate, g);
  store<W>(dgate_up + up, u);
}

// Thread i takes pack i; the next `count % W` threads take an element of the tail each. dy null:
// forward.
template <class T, int W>
__global__ void __launch_bounds__(kThreads)
    gelu_packs(const T* x, const T* dy, T* out, std::int64_t count, bool by_tanh) {
  const std::int64_t index = global_thread(), packs = count / W;
  const auto one = [&](float value, float slope_by) {
    return dy == nullptr ? gelu(value, by_tanh) : slope_by * gelu_slope(value, by_tanh);
  };
  if (index < packs) {
    float v[W], d[W] = {};
    load<W>(x + index * W, v);
    if (dy != nullptr) load<W>(dy + index * W, d);
#pragma unroll
    for (int i = 0; i < W; ++i) v[i] = one(v[i], d[i]);
    store<W>(out + index * W, v);
  } else if (index < packs + count % W) {
    const std::int64_t at = packs * W + (index - packs);
    out[at] = from_float<T>(one(to_float(x[at]), dy != nullptr ? to_float(dy[at]) : 0.0f));
  }
}

template <class T>
void gelu_either(const T* x, const T* dy, T* out, std::int64_t count, bool by_tanh, Stream stream) {
  const bool packs = aligned(x, dy, out);
  const std::int64_t width = packs ? kPack<T> : 1, work = count / width + count % width;
  launch(packs ? gelu_packs<T, kPack<T>> : gelu_packs<T, 1>, grid_of(blocks_for(work, kThreads)),
         kThreads, stream, x, dy, out, count, by_tanh);
}

}  // namespace

template <class T>
void swiglu_forward(const T* gate_up, T* y, std::int64_t rows, std::int64_t width, Stream stream) {
  const bool packs = width % kPack<T> == 0 && aligned(gate_up, y);
  const std::int64_t count = packs ? width / kPack<T> : width;
  launch(packs ? swiglu_forward_packs<T, kPack<T>> : swiglu_forward_packs<T, 1>,
         grid_of(blocks_for(rows * count, kThreads)), kThreads, stream, gate_up, y, rows, count);
}

template <class T>
void swiglu_backward(const T* gate_up, const T* dy, T* dgate_up, std::int64_t rows,
                     std::int64_t width, Stream stream) {
  const bool packs = width % kPack<T> == 0 && aligned(gate_up, dy, dgate_up);
  const std::int64_t count = packs ? width / kPack<T> : width;
  launch(packs ? swiglu_backward_packs<T, kPack<T>> : swiglu_backward_packs<T, 1>,
         grid_of(blocks_for(rows * count, kThreads)), kThreads, stream, gate_up, dy, dgate_up, rows,
         count);
}

template <class T>
void gelu_forward(const T* x, T* y, std::int64_t count, bool by_tanh, Stream stream) {
  gelu_either<T>(x, nullptr, y, count, by_tanh, stream);
}

template <class T>
void gelu_backward(const T* x, const T* dy, T* dx, std::int64_t count, bool by_tanh,
                   Stream stream) {
  gelu_either<T>(x, dy, dx, count, by_tanh, stream);
}

template void swiglu_forward(const float*, float*, std::int64_t, std::int64_t, Stream);
template void swiglu_forward(const bfloat16*, bfloat16*, std::int64_t, std::int64_t, Stream);
template void swiglu_backward(const float*, const float*, float*, std::int64_t, std::int64_t,
                              Stream);
template void swiglu_backward(const bfloat16*, const bfloat16*, bfloat16*, std::int64_t,
                              std::int64_t, Stream);
template void gelu_forward(const float*, float*, std::int64_t, bool, Stream);
template void gelu_forward(const bfloat16*, bfloat16*, std::int64_t, bool, Stream);
template void gelu_backward(const float*, const float*, float*, std::int64_t, bool, Stream);
template void gelu_backward(const bfloat16*, const bfloat16*, bfloat16*, std::int64_t, bool,
                            Stream);

}  // namespace omnima::kernels::cuda
