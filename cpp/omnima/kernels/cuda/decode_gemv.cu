// A part of a warp takes an output. It reads the output's row by 16 bytes a lane, a few of them
// ahead of the arithmetic, and all rows of x meet a piece while it is in registers.
#include "omnima/kernels/cuda/decode_gemv.h"
#include "omnima/kernels/cuda/decode_pieces.h"

namespace omnima::kernels::cuda {
namespace {

constexpr int kWarps = 4, kThreads = kWarps * kWarp;
constexpr int kMostRows = 8;  // of a block: more of them are further blocks
constexpr int kFewLanes = 8;  // of an output, where a row is short or x is read more than the row

// x[at ..]: 16 bytes at a time, or number by number with zeros behind the end.
template <int W>
__device__ inline void read_inputs(const float* x, std::int64_t at, std::int64_t inputs, bool whole,
                                   float (&out)[W]) {
  if (whole) {
    load<W>(x + at, out);
    return;
  }
#pragma unroll
  for (int i = 0; i < W; ++i) out[i] = at + i < inputs ? x[at + i] : 0.0f;
}

// Pieces of a lane under way: registers hold them, and the rows.
template <int kRows>
constexpr int kAhead = kRows == kMostRows ? 2 : 4;

// What a lane has summed of one output, for kRows rows of x.
template <int kRows>
struct Sums {
  float of[kRows] = {};
};

template <Numbers kKind, int kRows>
__device__ inline void add_piece(const GemvTask& task, const DecodeMatrix& matrix,
                                 const Piece& piece, PieceScale scale, std::int64_t index,
                                 const float* const (&x)[kRows], bool whole, Sums<kRows>& sums) {
  constexpr int W = kChunk<kKind>, kChunks = kPieceNumbers<kKind> / W;
  constexpr bool kScaled = kKind == Numbers::kInt8 || kKind == Numbers::kInt4;
  float here[kRows] = {}, plain[kRows] = {};
#pragma unroll
  for (int chunk = 0; chunk < kChunks; ++chunk) {
    const std::int64_t at = index * kPieceNumbers<kKind> + chunk * W;
    if (at >= matrix.inputs) break;
    float w[W];
    unpack<kKind>(piece, chunk, zero_of(matrix), w);
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      float in[W];
      read_inputs<W>(x[row], at, matrix.inputs, whole, in);
#pragma unroll
      for (int i = 0; i < W; ++i) {
        here[row] = fmaf(w[i], in[i], here[row]);
        if (kScaled && matrix.leasts != nullptr) plain[row] += in[i];
      }
    }
  }
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
    if constexpr (kScaled) {
      sums.of[row] = fmaf(scale.scale, here[row], sums.of[row]);
      sums.of[row] = fmaf(scale.least, plain[row], sums.of[row]);
    } else {
      sums.of[row] += here[row];
    }
  }
}

template <Numbers kKind, int kRows>
__global__ void __launch_bounds__(kThreads) gemv(GemvTask task, int lanes, bool whole) {
  const int lane = threadIdx.x % lanes;
  std::int64_t output =
      static_cast<std::int64_t>(blockIdx.x) * (kThreads / lanes) + threadIdx.x / lanes;
  int which = 0;
  while (which + 1 < task.count && output >= task.outputs[which].matrix.outputs) {
    output -= task.outputs[which++].matrix.outputs;
  }
  const GemvOutput& to = task.outputs[which];
  const DecodeMatrix& matrix = to.matrix;
  const bool any = output < matrix.outputs;  // all lanes meet in the sums
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.y) * kRows;
  const float* x[kRows];
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
    // What stands for a row behind the last is computed and not written.
    const std::int64_t at = first + row < task.rows ? first + row : task.rows - 1;
    x[row] = task.x + at * matrix.inputs;
  }
  constexpr std::int64_t kNumbers = kPieceNumbers<kKind>;
  const std::int64_t pieces = any ? (matrix.inputs + kNumbers - 1) / kNumbers : 0;
  Sums<kRows> sums;
  for (std::int64_t begin = lane; begin < pieces; begin += kAhead<kRows> * lanes) {
    Piece piece[kAhead<kRows>];
    PieceScale scale[kAhead<kRows>];
#pragma unroll
    for (int i = 0; i < kAhead<kRows>; ++i) {
      if (begin + i * lanes >= pieces) break;
      piece[i] = piece_at<kKind>(matrix, output, begin + i * lanes, whole);
      scale[i] = scale_at<kKind>(matrix, output, begin + i * lanes);
    }
#pragma unroll
    for (int i = 0; i < kAhead<kRows>; ++i) {
      if (begin + i * lanes >= pieces) break;
      add_piece<kKind, kRows>(task, matrix, piece[i], scale[i], begin + i * lanes, x, whole, sums);
    }
  }
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
    float sum = sums.of[row];
    for (int step = lanes / 2; step > 0; step /= 2) {
      sum += __shfl_xor_sync(kAllLanes, sum, step);
    }
    if (!any || lane != 0 || first + row >= task.rows) continue;
    float* y = to.y + (first + row) * to.y_stride + output;
    if (to.bias != nullptr) sum += to.bias[output];
    *y = task.adds ? *y + sum : sum;
  }
}

template <Numbers kKind, class T>
__global__ void __launch_bounds__(kThreads)
    unpack_pieces(DecodeMatrix matrix, std::int64_t first, std::int64_t count, T* out, bool whole) {
  constexpr std::int64_t kNumbers = kPieceNumbers<kKind>;
  constexpr int W = kChunk<kKind>;
  const std::int64_t pieces = (matrix.inputs + kNumbers - 1) / kNumbers;
  const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= count * pieces) return;
  const std::int64_t row = index / pieces, at = index - row * pieces;
  const Piece piece = piece_at<kKind>(matrix, first + row, at, whole);
  const PieceScale scale = scale_at<kKind>(matrix, first + row, at);
  for (int chunk = 0; chunk < kNumbers / W; ++chunk) {
    float w[W];
    unpack<kKind>(piece, chunk, zero_of(matrix), w);
    for (int i = 0; i < W; ++i) {
      const std::int64_t column = at * kNumbers + chunk * W + i;
      if (column >= matrix.inputs) return;
      // Rounded as the formats are defined: product and sum one by one.
      if (matrix.scales != nullptr) w[i] = __fadd_rn(__fmul_rn(scale.scale, w[i]), scale.least);
      out[row * matrix.inputs + column] = from_float<T>(w[i]);
    }
  }
}

}  // namespace

void decode_gemv(const GemvTask& task, Stream stream) {
  const DecodeMatrix& one = task.outputs[0].matrix;
  std::int64_t outputs = 0;
  for (int i = 0; i < task.count; ++i) outputs += task.outputs[i].matrix.outputs;
  const bool whole = one.whole() && aligned(task.x);
  by_kind(one.kind, [&]<Numbers kKind>() {
    const std::int64_t pieces = one.inputs / kPieceNumbers<kKind>;
    const bool few = kKind == Numbers::kInt4 || pieces < kWarp;
    const int lanes = few ? kFewLanes : kWarp;
    const auto run = [&](auto kernel, std::int64_t rows) {
      launch(kernel, grid_of(blocks_for(outputs, kThreads / lanes), blocks_for(task.rows, rows)),
             kThreads, stream, task, lanes, whole);
    };
    if (task.rows == 1) {
      run(gemv<kKind, 1>, 1);
    } else if (task.rows == 2) {
      run(gemv<kKind, 2>, 2);
    } else if (task.rows <= 4) {
      run(gemv<kKind, 4>, 4);
    } else {
      run(gemv<kKind, kMostRows>, kMostRows);
    }
  });
}

template <class T>
void unpack_rows(const DecodeMatrix& matrix, std::int64_t first, std::int64_t count, T* out,
                 Stream stream) {
  by_kind(matrix.kind, [&]<Numbers kKind>() {
    const std::int64_t numbers = kPieceNumbers<kKind>;
    const std::int64_t pieces = count * ((matrix.inputs + numbers - 1) / numbers);
    launch(unpack_pieces<kKind, T>, grid_of(blocks_for(pieces, kThreads)), kThreads, stream, matrix,
           first, count, out, matrix.whole());
  });
}

template void unpack_rows(const DecodeMatrix&, std::int64_t, std::int64_t, float*, Stream);
template void unpack_rows(const DecodeMatrix&, std::int64_t, std::int64_t, bfloat16*, Stream);

}  // namespace omnima::kernels::cuda
