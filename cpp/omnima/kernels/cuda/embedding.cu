// Equal ids stand together in the sorted list. A run that reaches into later chunks has its part of
// each of them summed first; the block at the run's start then adds the parts in order.
#include "omnima/kernels/cuda/device.h"
#include "omnima/kernels/cuda/embedding.h"

namespace omnima::kernels::cuda {
namespace {

constexpr int kThreads = 64;

// The end of the run that begins at `begin`, not past its chunk.
template <class T>
__device__ inline std::int64_t end_in_chunk(const EmbeddingBackward<T>& task, std::int64_t begin) {
  const std::int64_t chunk_end = (begin / kEmbeddingChunk + 1) * kEmbeddingChunk;
  const std::int64_t limit = chunk_end < task.count ? chunk_end : task.count;
  std::int64_t end = begin + 1;
  while (end < limit && task.sorted_ids[end] == task.sorted_ids[begin]) ++end;
  return end;
}

template <int W, class T>
__device__ inline void add_rows(const EmbeddingBackward<T>& task, std::int64_t begin,
                                std::int64_t end, std::int64_t col, float (&sum)[W]) {
#pragma unroll 4
  for (std::int64_t place = begin; place < end; ++place) {
    float row[W];
    load<W>(task.dy + task.order[place] * task.width + col, row);
#pragma unroll
    for (int i = 0; i < W; ++i) sum[i] += row[i];
  }
}

__device__ inline std::int64_t column(int pack) {
  return (static_cast<std::int64_t>(blockIdx.y) * kThreads + threadIdx.x) * pack;
}

// Block x: the beginning of chunk x, where a run goes on from the chunk before.
template <class T, int W>
__global__ void __launch_bounds__(kThreads) sum_continued(EmbeddingBackward<T> task) {
  const std::int64_t begin = static_cast<std::int64_t>(blockIdx.x) * kEmbeddingChunk;
  if (begin == 0 || task.sorted_ids[begin - 1] != task.sorted_ids[begin]) return;
  const std::int64_t col = column(W);
  if (col >= task.width) return;
  float sum[W] = {};
  add_rows<W>(task, begin, end_in_chunk(task, begin), col, sum);
  store<W>(task.partial + static_cast<std::int64_t>(blockIdx.x) * task.width + col, sum);
}

// Block x: the run that begins at place x, if one does.
template <class T, int W>
__global__ void __launch_bounds__(kThreads) add_runs(EmbeddingBackward<T> task) {
  const std::int64_t begin = blockIdx.x, id = task.sorted_ids[begin];
  if (begin > 0 && task.sorted_ids[begin - 1] == id) return;
  const std::int64_t col = column(W);
  if (col >= task.width) return;
  float sum[W] = {}, part[W];
  add_rows<W>(task, begin, end_in_chunk(task, begin), col, sum);
  for (std::int64_t chunk = begin / kEmbeddingChunk + 1;
       chunk * kEmbeddingChunk < task.count && task.sorted_ids[chunk * kEmbeddingChunk] == id;
       ++chunk) {
    load<W>(task.partial + chunk * task.width + col, part);
#pragma unroll
    for (int i = 0; i < W; ++i) sum[i] += part[i];
  }
  float* grad = task.grad + id * task.width + col;
  load<W>(grad, part);
#pragma unroll
  for (int i = 0; i < W; ++i) part[i] += sum[i];
  store<W>(grad, part);
}

template <class T, int W>
void backward_by(const EmbeddingBackward<T>& task, Stream stream) {
  const std::int64_t tiles = blocks_for(task.width, kThreads * W);
  launch(sum_continued<T, W>, grid_of(blocks_for(task.count, kEmbeddingChunk), tiles), kThreads,
         stream, task);
  launch(add_runs<T, W>, grid_of(task.count, tiles), kThreads, stream, task);
}

}  // namespace

template <class T>
void embedding_backward(const EmbeddingBackward<T>& task, Stream stream) {
  if (task.width % kPack<T> == 0 && aligned(task.dy, task.partial, task.grad)) {
    backward_by<T, kPack<T>>(task, stream);
  } else {
    backward_by<T, 1>(task, stream);
  }
}

template void embedding_backward(const EmbeddingBackward<float>&, Stream);
template void embedding_backward(const EmbeddingBackward<bfloat16>&, Stream);

}  // namespace omnima::kernels::cuda
