// A block takes a row.
#include "omnima/kernels/cuda/decode_cache.h"
#include "omnima/kernels/cuda/decode_pieces.h"
#include "omnima/kernels/cuda/decode_rows.h"

namespace omnima::kernels::cuda {
namespace {

constexpr int kThreads = 128;

// Number `column` of a matrix' row, alone.
template <Numbers kKind>
__device__ inline float number_at(const DecodeMatrix& matrix, std::int64_t row,
                                  std::int64_t column) {
  constexpr std::int64_t kNumbers = kPieceNumbers<kKind>;
  const auto* bytes = static_cast<const std::uint8_t*>(matrix.numbers) + row * matrix.row_bytes;
  if constexpr (kKind == Numbers::kFloat32) {
    return reinterpret_cast<const float*>(bytes)[column];
  } else if constexpr (kKind == Numbers::kFloat16) {
    return half_to_float(reinterpret_cast<const std::uint16_t*>(bytes)[column]);
  } else if constexpr (kKind == Numbers::kBfloat16) {
    return to_float(reinterpret_cast<const bfloat16*>(bytes)[column]);
  } else {
    int level = bytes[column];
    if constexpr (kKind == Numbers::kInt4) {
      const std::int64_t in_piece = column % kNumbers;
      level = (bytes[column / kNumbers * kPieceBytes + in_piece / 2] >> (4 * (in_piece % 2))) & 15;
    }
    const PieceScale scale = scale_at<kKind>(matrix, row, column / kNumbers);
    const float number = static_cast<float>(level) - zero_of(matrix);
    return __fadd_rn(__fmul_rn(scale.scale, number), scale.least);
  }
}

__device__ inline float any_number_at(const DecodeMatrix& matrix, std::int64_t row,
                                      std::int64_t column) {
  switch (matrix.kind) {
    case Numbers::kFloat32:
      return number_at<Numbers::kFloat32>(matrix, row, column);
    case Numbers::kFloat16:
      return number_at<Numbers::kFloat16>(matrix, row, column);
    case Numbers::kBfloat16:
      return number_at<Numbers::kBfloat16>(matrix, row, column);
    case Numbers::kInt8:
      return number_at<Numbers::kInt8>(matrix, row, column);
    default:
      return number_at<Numbers::kInt4>(matrix, row, column);
  }
}

__global__ void __launch_bounds__(kThreads) embed_rows(EmbedTask task) {
  const DecodeRow row = task.rows[blockIdx.x];
  const std::int64_t hidden = task.embedding.inputs;
  float* x = task.x + blockIdx.x * hidden;
  for (std::int64_t i = threadIdx.x; i < hidden; i += kThreads) {
    float number = 0;
    if (row.position >= 0) {
      number = __fmul_rn(any_number_at(task.embedding, row.token, i), task.multiplier);
      if (task.positions.outputs > 0) number += any_number_at(task.positions, row.position, i);
    }
    x[i] = number;
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) place_rows(PlaceTask<T> task) {
  const DecodeRow row = task.rows[blockIdx.x];
  if (row.position < 0) return;  // the whole block
  const int width = task.head_dim, half = width / 2, turned = task.heads + task.kv_heads;
  const float* cos = (task.cos != nullptr ? task.cos : row.cos) + row.position * half;
  const float* sin = (task.sin != nullptr ? task.sin : row.sin) + row.position * half;
  const std::int64_t token = blockIdx.x;
  for (int index = threadIdx.x; index < turned * half; index += kThreads) {
    const int head = index / half, pair = index - head * half;
    const bool query = head < task.heads;
    float* q = task.q + (token * task.heads + head) * width;
    const int kv = head - task.heads;
    const float* from = query ? q : task.k + (token * task.kv_heads + kv) * width;
    float a = from[pair], b = from[half + pair];
    if (task.turns) {
      const float c = cos[pair], s = sin[pair], x = a;
      a = x * c - b * s;
      b = b * c + x * s;
    }
    if (query) {
      q[pair] = a;
      q[half + pair] = b;
    } else {
      T* to = keys_of<T>(row, task.layer, task.kv_heads, kv, width) + row.position * width;
      to[pair] = from_float<T>(a);
      to[half + pair] = from_float<T>(b);
    }
  }
  for (int index = threadIdx.x; index < task.kv_heads * width; index += kThreads) {
    const int kv = index / width, i = index - kv * width;
    T* keys = keys_of<T>(row, task.layer, task.kv_heads, kv, width);
    keys[(row.capacity + row.position) * width + i] =
        from_float<T>(task.v[token * task.kv_heads * width + index]);
    // The number in the middle of an odd head has no partner.
    if (width % 2 == 1 && i == width - 1) {
      keys[row.position * width + i] = from_float<T>(task.k[token * task.kv_heads * width + index]);
    }
  }
}

}  // namespace

void decode_embed(const EmbedTask& task, Stream stream) {
  launch(embed_rows, grid_of(task.count), kThreads, stream, task);
}

template <class T>
void decode_place(const PlaceTask<T>& task, Stream stream) {
  launch(place_rows<T>, grid_of(task.count), kThreads, stream, task);
}

template void decode_place(const PlaceTask<float>&, Stream);
template void decode_place(const PlaceTask<bfloat16>&, Stream);

}  // namespace omnima::kernels::cuda
