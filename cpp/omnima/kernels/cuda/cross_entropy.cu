// A block takes a row: one pass for the maximum and the sum of exponentials together (each thread
// rescales its sum when it meets a larger logit), one pass that writes the gradient.
#include "omnima/core/labels.h"
#include "omnima/kernels/cuda/cross_entropy.h"
#include "omnima/kernels/cuda/device.h"

namespace omnima::kernels::cuda {
namespace {

constexpr int kMostThreads = 512;  // a block has as many as its row keeps busy

// The sum of exp(x - most) over what was seen. Without a finite maximum x itself stands in the
// exponent, so that -inf counts nothing and NaN stays.
struct Online {
  float most = -INFINITY;
  float sum = 0;

  __device__ void rise_to(float top) {
    if (!(top > most)) return;
    if (most != -INFINITY) sum *= __expf(most - top);
    most = top;
  }
  __device__ void add(float x) { sum += __expf(most == -INFINITY ? x : x - most); }
};

template <class T, int W>
__device__ inline Online read_row(const T* logits, std::int64_t vocab) {
  Online seen;
  const std::int64_t packs = vocab / W;
  for (std::int64_t pack = threadIdx.x; pack < packs; pack += blockDim.x) {
    float x[W];
    load<W>(logits + pack * W, x);
    float top = x[0];
#pragma unroll
    for (int i = 1; i < W; ++i) top = fmaxf(top, x[i]);
    seen.rise_to(top);
#pragma unroll
    for (int i = 0; i < W; ++i) seen.add(x[i]);
  }
  for (std::int64_t at = packs * W + threadIdx.x; at < vocab; at += blockDim.x) {
    const float x = to_float(logits[at]);
    seen.rise_to(x);
    seen.add(x);
  }
  return seen;
}

// f(place, value) -> what is written there.
template <class T, int W, class F>
__device__ inline void rewrite_row(T* logits, std::int64_t vocab, F f) {
  const std::int64_t packs = vocab / W;
  for (std::int64_t pack = threadIdx.x; pack < packs; pack += blockDim.x) {
    float x[W];
    load<W>(logits + pack * W, x);
#pragma unroll
    for (int i = 0; i < W; ++i) x[i] = f(pack * W + i, x[i]);
    store<W>(logits + pack * W, x);
  }
  for (std::int64_t at = packs * W + threadIdx.x; at < vocab; at += blockDim.x) {
    logits[at] = from_float<T>(f(at, to_float(logits[at])));
  }
}

template <class T, int W>
__global__ void __launch_bounds__(kMostThreads) loss_rows(CrossEntropyTask<T> task) {
  __shared__ float shared[kMostThreads / kWarp];
  for (std::int64_t row = blockIdx.x; row < task.rows; row += gridDim.x) {
    T* logits = task.logits + row * task.stride;
    const std::int64_t label = task.labels[row];
    if (label < 0 || label >= task.vocab) {  // the same for the whole block
      if (threadIdx.x == 0) task.losses[row] = label == core::kIgnoredLabel ? 0.0f : NAN;
      if (task.with_gradient) {
        rewrite_row<T, W>(logits, task.vocab, [](std::int64_t, float) { return 0.0f; });
      }
      continue;
    }
    const float target = to_float(logits[label]);  // before the barriers: it is overwritten after
    const Online seen = read_row<T, W>(logits, task.vocab);
    const float most = block_max(seen.most, shared);
    const float own = seen.sum * __expf(seen.most - most);  // nothing seen: a factor of zero
    const float sum = block_sum(own, shared);
    if (threadIdx.x == 0) task.losses[row] = logf(sum) + (most - target);
    if (!task.with_gradient) continue;
    const float scale = task.scale, factor = scale / sum;
    rewrite_row<T, W>(logits, task.vocab, [=](std::int64_t at, float x) {
      return __expf(x - most) * factor - (at == label ? scale : 0.0f);
    });
  }
}

__global__ void __launch_bounds__(kMostThreads)
    add_losses_in_order(const float* losses, std::int64_t rows, float scale, float* total) {
  __shared__ float shared[kMostThreads / kWarp];
  float sum = 0;
  for (std::int64_t row = threadIdx.x; row < rows; row += blockDim.x) sum += losses[row];
  sum = block_sum(sum, shared);
  if (threadIdx.x == 0) *total += sum * scale;
}

// Whole warps, up to kMostThreads.
int threads_for(std::int64_t work) {
  const std::int64_t threads = blocks_for(work, kWarp) * kWarp;
  return static_cast<int>(threads < kWarp          ? kWarp
                          : threads > kMostThreads ? kMostThreads
                                                   : threads);
}

}  // namespace

template <class T>
void cross_entropy(const CrossEntropyTask<T>& task, Stream stream) {
  const bool packs = task.stride % kPack<T> == 0 && aligned(task.logits);
  const int threads = threads_for(packs ? blocks_for(task.vocab, kPack<T>) : task.vocab);
  launch(packs ? loss_rows<T, kPack<T>> : loss_rows<T, 1>, grid_of(task.rows), threads, stream,
         task);
}

void add_losses(const float* losses, std::int64_t rows, float scale, float* total, Stream stream) {
  launch(add_losses_in_order, grid_of(1), threads_for(rows), stream, losses, rows, scale, total);
}

template void cross_entropy(const CrossEntropyTask<float>&, Stream);
template void cross_entropy(const CrossEntropyTask<bfloat16>&, Stream);

}  // namespace omnima::kernels::cuda
