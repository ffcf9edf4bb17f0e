// A block takes a stretch of a sequence for the query heads that share its keys and values, so
// these are read once. Stretches begin at multiples of kSplitTokens, whatever the length, and are
// joined in their order (the softmax of Milakov and Gimelshein 2018): the same sums in any batch.
#include "omnima/kernels/cuda/decode_attention.h"
#include "omnima/kernels/cuda/decode_cache.h"

namespace omnima::kernels::cuda {
namespace {

constexpr int kWarps = 4, kThreads = kWarps * kWarp;
constexpr int kGroup = 4;     // query heads of a block
constexpr int kKeyLanes = 8;  // that share a key

// What is added to a query's product with a key.
__device__ inline float shaped(const AttentionTask& task, float product, int head,
                               std::int64_t distance) {
  float score = product * task.scale;
  if (task.softcap > 0) score = task.softcap * tanhf(score / task.softcap);
  if (task.slopes != nullptr) score -= task.slopes[head] * static_cast<float>(distance);
  if (task.buckets != nullptr) score += task.bias[task.buckets[distance] * task.heads + head];
  return score;
}

// Where a row's stretch begins and ends; empty: nothing of it is seen.
struct Stretch {
  std::int64_t begin, end;
};

__device__ inline Stretch stretch_of(const AttentionTask& task, std::int64_t position,
                                     std::int64_t split) {
  const std::int64_t first = split * kSplitTokens;
  const std::int64_t seen = task.window > 0 ? position + 1 - task.window : 0;
  const std::int64_t last = first + kSplitTokens;
  return {first > seen ? first : seen, last < position + 1 ? last : position + 1};
}

// partial [rows, heads, splits]: the sums [head_dim], the largest score, the sum of the weights.
__device__ inline float* partial_of(const AttentionTask& task, std::int64_t row, int head,
                                    std::int64_t splits, std::int64_t split) {
  return task.partial + ((row * task.heads + head) * splits + split) * (task.head_dim + 2);
}

template <class T, int W>
__global__ void __launch_bounds__(kThreads) attend_splits(AttentionTask task, int parts) {
  __shared__ float queries[kGroup][kMostHeadDim];
  __shared__ float scores[kGroup][kSplitTokens];
  __shared__ float sums[kThreads * W];
  __shared__ float reduced[kWarp], tops[kGroup], totals[kGroup];
  const int shared = task.heads / task.kv_heads;
  const int part = blockIdx.x % parts;  // of the query heads
  const int kv = blockIdx.x / parts % task.kv_heads;
  const std::int64_t at = blockIdx.x / parts / task.kv_heads;
  const DecodeRow row = task.rows[at];
  const Stretch stretch = stretch_of(task, row.position, blockIdx.y);
  if (stretch.begin >= stretch.end) return;  // the whole block
  const int count = static_cast<int>(stretch.end - stretch.begin);
  const int group = shared - part * kGroup < kGroup ? shared - part * kGroup : kGroup;
  const int first_head = kv * shared + part * kGroup;
  const int width = task.head_dim, packs = width / W;
  const T* keys = keys_of<T>(row, task.layer, task.kv_heads, kv, width) + stretch.begin * width;
  const T* values = keys + row.capacity * width;

  const float* q = task.q + (at * task.heads + first_head) * width;
  for (int i = threadIdx.x; i < kGroup * width; i += kThreads) {
    queries[i / width][i % width] = i < group * width ? q[i] : 0.0f;
  }
  __syncthreads();

  const int lane = threadIdx.x % kKeyLanes;
  for (int first = 0; first < count; first += kThreads / kKeyLanes) {
    const int token = first + static_cast<int>(threadIdx.x) / kKeyLanes;
    float products[kGroup] = {};
    for (int pack = lane; token < count && pack < packs; pack += kKeyLanes) {
      float key[W];
      load<W>(keys + static_cast<std::int64_t>(token) * width + pack * W, key);
#pragma unroll
      for (int g = 0; g < kGroup; ++g) {
#pragma unroll
        for (int i = 0; i < W; ++i) {
          products[g] = fmaf(key[i], queries[g][pack * W + i], products[g]);
        }
      }
    }
#pragma unroll
    for (int g = 0; g < kGroup; ++g) {
#pragma unroll
      for (int step = kKeyLanes / 2; step > 0; step /= 2) {
        products[g] += __shfl_xor_sync(kAllLanes, products[g], step);
      }
      if (lane == 0 && token < count && g < group) {
        scores[g][token] =
            shaped(task, products[g], first_head + g, row.position - stretch.begin - token);
      }
    }
  }
  __syncthreads();

  for (int g = 0; g < group; ++g) {
    float top = -INFINITY;
    for (int i = threadIdx.x; i < count; i += kThreads) top = fmaxf(top, scores[g][i]);
    top = block_max(top, reduced);
    float total = 0;
    for (int i = threadIdx.x; i < count; i += kThreads) {
      scores[g][i] = __expf(scores[g][i] - top);
      total += scores[g][i];
    }
    total = block_sum(total, reduced);
    if (threadIdx.x == 0) {
      tops[g] = top;
      totals[g] = total;
    }
  }
  __syncthreads();

  // A thread takes a pack of columns for every n-th token; then those of one pack are added.
  for (int first = 0; first < packs; first += kThreads) {
    const int here = packs - first < kThreads ? packs - first : kThreads;
    const int teams = kThreads / here;
    const int pack = static_cast<int>(threadIdx.x) % here;
    const int team = static_cast<int>(threadIdx.x) / here;
    float sum[kGroup][W] = {};
    for (int token = team; team < teams && token < count; token += teams) {
      float value[W];
      load<W>(values + static_cast<std::int64_t>(token) * width + (first + pack) * W, value);
#pragma unroll
      for (int g = 0; g < kGroup; ++g) {
        const float weight = g < group ? scores[g][token] : 0.0f;
#pragma unroll
        for (int i = 0; i < W; ++i) sum[g][i] = fmaf(weight, value[i], sum[g][i]);
      }
    }
#pragma unroll
    for (int g = 0; g < kGroup; ++g) {
      if (g >= group) break;
#pragma unroll
      for (int i = 0; i < W; ++i) sums[threadIdx.x * W + i] = sum[g][i];
      __syncthreads();
      for (int column = threadIdx.x; column < here * W; column += kThreads) {
        float all = 0;
        for (int other = 0; other < teams; ++other) all += sums[other * here * W + column];
        const int head = first_head + g, to = first * W + column;
        if (gridDim.y == 1) {
          task.out[(at * task.heads + head) * width + to] = all / totals[g];
        } else {
          partial_of(task, at, head, gridDim.y, blockIdx.y)[to] = all;
        }
      }
      __syncthreads();
    }
  }
  if (gridDim.y > 1 && threadIdx.x < static_cast<unsigned>(group)) {
    const int g = threadIdx.x;
    float* to = partial_of(task, at, first_head + g, gridDim.y, blockIdx.y) + width;
    to[0] = tops[g];
    to[1] = totals[g];
  }
}

// A block joins the stretches of one head of one row.
__global__ void __launch_bounds__(kThreads) join_splits(AttentionTask task, std::int64_t splits) {
  const std::int64_t row = blockIdx.x / task.heads;
  const int head = blockIdx.x % task.heads, width = task.head_dim;
  const std::int64_t position = task.rows[row].position;
  if (position < 0) return;  // the whole block
  float top = -INFINITY;
  for (std::int64_t i = 0; i < splits; ++i) {
    const Stretch stretch = stretch_of(task, position, i);
    if (stretch.begin < stretch.end)
      top = fmaxf(top, partial_of(task, row, head, splits, i)[width]);
  }
  for (int column = threadIdx.x; column < width; column += kThreads) {
    float sum = 0, total = 0;
    for (std::int64_t i = 0; i < splits; ++i) {
      const Stretch stretch = stretch_of(task, position, i);
      if (stretch.begin >= stretch.end) continue;
      const float* from = partial_of(task, row, head, splits, i);
      const float share = __expf(from[width] - top);
      sum = fmaf(share, from[column], sum);
      total = fmaf(share, from[width + 1], total);
    }
    task.out[(row * task.heads + head) * width + column] = sum / total;
  }
}

}  // namespace

std::int64_t splits_of(std::int64_t longest) { return blocks_for(longest, kSplitTokens); }

std::int64_t attention_scratch(std::int64_t rows, std::int64_t heads, std::int64_t head_dim,
                               std::int64_t longest) {
  const std::int64_t splits = splits_of(longest);
  return splits == 1 ? 0 : rows * heads * splits * (head_dim + 2);
}

template <class T>
void decode_attention(const AttentionTask& task, Stream stream) {
  constexpr int W = kPack<T>;
  const std::int64_t splits = splits_of(task.longest);
  const int shared = task.heads / task.kv_heads;
  const int parts = static_cast<int>(blocks_for(shared, kGroup));
  const bool packs = task.head_dim % W == 0;  // caches are aligned as their allocations are
  const dim3 grid = grid_of(task.count * task.kv_heads * parts, splits);
  launch(packs ? attend_splits<T, W> : attend_splits<T, 1>, grid, kThreads, stream, task, parts);
  if (splits == 1) return;
  launch(join_splits, grid_of(task.count * task.heads), kThreads, stream, task, splits);
}

template void decode_attention<float>(const AttentionTask&, Stream);
template void decode_attention<bfloat16>(const AttentionTask&, Stream);

}  // namespace omnima::kernels::cuda
