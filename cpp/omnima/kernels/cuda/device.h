// What kernels share, for .cu files only: conversions, 16-byte packs, sums over a warp and a block,
// and the launch itself through the runtime's functions (no <<<>>>, so that the tests can compile
// the same sources against a runtime of their own).
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "omnima/kernels/cuda/types.h"

namespace omnima::kernels::cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr std::int64_t kLargestGrid = 2147483647;  // blocks along x

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(bfloat16 x) {
  return __uint_as_float(static_cast<unsigned>(x.bits) << 16);
}

template <class T>
__device__ inline T from_float(float x);
template <>
__device__ inline float from_float<float>(float x) {
  return x;
}
template <>
__device__ inline bfloat16 from_float<bfloat16>(float x) {
  return {__bfloat16_as_ushort(__float2bfloat16_rn(x))};
}

// W neighbours moved by one access (two for eight floats).
template <class T, int W>
struct alignas(sizeof(T) * W > 16 ? 16 : sizeof(T) * W) Pack {
  T values[W];
};

template <int W, class T>
__device__ inline void load(const T* from, float (&to)[W]) {
  const Pack<T, W> pack = *reinterpret_cast<const Pack<T, W>*>(from);
#pragma unroll
  for (int i = 0; i < W; ++i) to[i] = to_float(pack.values[i]);
}

template <int W, class T>
__device__ inline void store(T* to, const float (&from)[W]) {
  Pack<T, W> pack;
#pragma unroll
  for (int i = 0; i < W; ++i) pack.values[i] = from_float<T>(from[i]);
  *reinterpret_cast<Pack<T, W>*>(to) = pack;
}

// Elements of T in 16 bytes.
template <class T>
constexpr int kPack = 16 / static_cast<int>(sizeof(T));

// Every lane gets the warp's sum; the order of additions is fixed.
__device__ inline float warp_sum(float x) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}

__device__ inline float warp_max(float x) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) {
    x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, step));
  }
  return x;
}

// Every thread gets the block's sum or maximum: `reduce` does a warp, `neutral` stands for a warp
// that is not there. `shared` holds a float for each of up to 32 warps and may be used again at
// once.
template <class Reduce>
__device__ inline float block_reduce(float x, float neutral, float* shared, Reduce reduce) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int warps = (blockDim.x + kWarp - 1) / kWarp;
  x = reduce(x);
  if (lane == 0) shared[warp] = x;
  __syncthreads();
  x = reduce(lane < warps ? shared[lane] : neutral);
  __syncthreads();
  return x;
}

__device__ inline float block_sum(float x, float* shared) {
  return block_reduce(x, 0.0f, shared, [](float y) { return warp_sum(y); });
}

__device__ inline float block_max(float x, float* shared) {
  return block_reduce(x, -INFINITY, shared, [](float y) { return warp_max(y); });
}

// --- on the host
// ----------------------------------------------------------------------------------

inline std::int64_t blocks_for(std::int64_t work, std::int64_t per_block) {
  return (work + per_block - 1) / per_block;
}

// A null pointer is as well aligned as any.
template <class... P>
bool aligned(const P*... pointers) {
  return ((reinterpret_cast<std::uintptr_t>(pointers) % 16 == 0) && ...);
}

// Nothing is launched for a grid without blocks.
template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, int threads, Stream stream, A... arguments) {
  if (grid.x == 0 || grid.y == 0) return;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.stream = stream;
  cudaLaunchKernelEx(&config, kernel, static_cast<P>(arguments)...);
}

inline dim3 grid_of(std::int64_t x, std::int64_t y = 1) {
  return dim3(static_cast<unsigned>(x < kLargestGrid ? x : kLargestGrid), static_cast<unsigned>(y));
}

}  // namespace omnima::kernels::cuda
