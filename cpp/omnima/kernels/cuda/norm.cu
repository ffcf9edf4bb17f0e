// A warp takes a row. The weight's gradient is a pass by columns over parts of the rows, whose
// partial sums a second pass adds in order: no float atomics, the same bits every time.
#include "omnima/kernels/cuda/device.h"
#include "omnima/kernels/cuda/norm.h"

namespace omnima::kernels::cuda {
namespace {

constexpr int kRowsPerBlock = 4;
constexpr int kRowThreads = kRowsPerBlock * kWarp;
constexpr int kColumnThreads = 128;
constexpr std::int64_t kMostParts = 256;

template <class T, int W>
__global__ void __launch_bounds__(kRowThreads)
    forward_rows(NormForward<T> tensors, std::int64_t rows, std::int64_t cols, float eps) {
  const std::int64_t row =
      static_cast<std::int64_t>(blockIdx.x) * kRowsPerBlock + threadIdx.x / kWarp;
  if (row >= rows) return;  // the whole warp
  const std::int64_t first = static_cast<std::int64_t>(threadIdx.x % kWarp) * W;
  const std::int64_t start = row * cols;
  const T* source = tensors.x + start;
  float plain = 0, square = 0;
  for (std::int64_t col = first; col < cols; col += kWarp * W) {
    float x[W];
    load<W>(source + col, x);
    if (tensors.residual != nullptr) {
      float other[W];
      load<W>(tensors.residual + start + col, other);
#pragma unroll
      for (int i = 0; i < W; ++i) x[i] = to_float(from_float<T>(x[i] + other[i]));
      store<W>(tensors.sum + start + col, x);
    }
#pragma unroll
    for (int i = 0; i < W; ++i) {
      plain += x[i];
      square += x[i] * x[i];
    }
  }
  if (tensors.residual != nullptr) source = tensors.sum + start;  // a lane reads what it wrote
  float mean = 0;
  if (tensors.mean != nullptr) {
    mean = warp_sum(plain) / cols;
    // A second look at the row: the difference of two large sums would lose the variance.
    square = 0;
    for (std::int64_t col = first; col < cols; col += kWarp * W) {
      float x[W];
      load<W>(source + col, x);
#pragma unroll
      for (int i = 0; i < W; ++i) square += (x[i] - mean) * (x[i] - mean);
    }
  }
  const float rstd = rsqrtf(warp_sum(square) / cols + eps);
  if (first == 0) {
    tensors.rstd[row] = rstd;
    if (tensors.mean != nullptr) tensors.mean[row] = mean;
  }
  for (std::int64_t col = first; col < cols; col += kWarp * W) {
    float x[W], weight[W], bias[W] = {};
    load<W>(source + col, x);
    load<W>(tensors.weight + col, weight);
    if (tensors.bias != nullptr) load<W>(tensors.bias + col, bias);
#pragma unroll
    for (int i = 0; i < W; ++i) x[i] = (x[i] - mean) * rstd * weight[i] + bias[i];
    store<W>(tensors.y + start + col, x);
  }
}

// dx = rstd (g - mean(g) - x^ mean(g x^)) with g = dy weight; RMSNorm has no mean(g).
template <class T, int W>
__global__ void __launch_bounds__(kRowThreads)
    backward_rows(NormBackward<T> tensors, std::int64_t rows, std::int64_t cols) {
  const std::int64_t row =
      static_cast<std::int64_t>(blockIdx.x) * kRowsPerBlock + threadIdx.x / kWarp;
  if (row >= rows) return;
  const std::int64_t first = static_cast<std::int64_t>(threadIdx.x % kWarp) * W;
  const std::int64_t start = row * cols;
  const float rstd = tensors.rstd[row];
  const float mean = tensors.mean != nullptr ? tensors.mean[row] : 0.0f;
  float plain = 0, along = 0;
  for (std::int64_t col = first; col < cols; col += kWarp * W) {
    float x[W], dy[W], weight[W];
    load<W>(tensors.x + start + col, x);
    load<W>(tensors.dy + start + col, dy);
    load<W>(tensors.weight + col, weight);
#pragma unroll
    for (int i = 0; i < W; ++i) {
      const float g = dy[i] * weight[i];
      plain += g;
      along += g * (x[i] - mean) * rstd;
    }
  }
  along = warp_sum(along) / cols;
  plain = tensors.mean != nullptr ? warp_sum(plain) / cols : 0.0f;
  for (std::int64_t col = first; col < cols; col += kWarp * W) {
    float x[W], dy[W], weight[W], other[W] = {};
    load<W>(tensors.x + start + col, x);
    load<W>(tensors.dy + start + col, dy);
    load<W>(tensors.weight + col, weight);
    if (tensors.dsum != nullptr) load<W>(tensors.dsum + start + col, other);
#pragma unroll
    for (int i = 0; i < W; ++i) {
      const float normal = (x[i] - mean) * rstd;
      x[i] = rstd * (dy[i] * weight[i] - plain - normal * along) + other[i];
    }
    store<W>(tensors.dx + start + col, x);
  }
}

// Block (x, y): W columns a thread, over the rows of part y.
template <class T, int W>
__global__ void __launch_bounds__(kColumnThreads)
    partial_columns(NormBackward<T> tensors, std::int64_t rows, std::int64_t cols) {
  const std::int64_t col =
      (static_cast<std::int64_t>(blockIdx.x) * kColumnThreads + threadIdx.x) * W;
  if (col >= cols) return;
  const std::int64_t parts = gridDim.y, part = blockIdx.y;
  const std::int64_t begin = rows * part / parts, end = rows * (part + 1) / parts;
  float dweight[W] = {}, dbias[W] = {};
  for (std::int64_t row = begin; row < end; ++row) {
    float x[W], dy[W];
    load<W>(tensors.x + row * cols + col, x);
    load<W>(tensors.dy + row * cols + col, dy);
    const float rstd = tensors.rstd[row];
    const float mean = tensors.mean != nullptr ? tensors.mean[row] : 0.0f;
#pragma unroll
    for (int i = 0; i < W; ++i) {
      dweight[i] += dy[i] * (x[i] - mean) * rstd;
      dbias[i] += dy[i];
    }
  }
  store<W>(tensors.partial + part * cols + col, dweight);
  if (tensors.dbias != nullptr) store<W>(tensors.partial + (parts + part) * cols + col, dbias);
}

__global__ void __launch_bounds__(kColumnThreads)
    sum_parts(const float* partial, float* into, std::int64_t parts, std::int64_t cols) {
  const std::int64_t col = static_cast<std::int64_t>(blockIdx.x) * kColumnThreads + threadIdx.x;
  if (col >= cols) return;
  float sum = 0;
  for (std::int64_t part = 0; part < parts; ++part) sum += partial[part * cols + col];
  into[col] += sum;
}

template <class T, int W>
void backward_by(const NormBackward<T>& tensors, const NormShape& shape, Stream stream) {
  const std::int64_t rows = shape.rows, cols = shape.cols, parts = norm_parts(rows);
  launch(backward_rows<T, W>, grid_of(blocks_for(rows, kRowsPerBlock)), kRowThreads, stream,
         tensors, rows, cols);
  launch(partial_columns<T, W>, grid_of(blocks_for(cols, kColumnThreads * W), parts),
         kColumnThreads, stream, tensors, rows, cols);
  const dim3 columns = grid_of(blocks_for(cols, kColumnThreads));
  launch(sum_parts, columns, kColumnThreads, stream, tensors.partial, tensors.dweight, parts, cols);
  if (tensors.dbias == nullptr) return;
  launch(sum_parts, columns, kColumnThreads, stream, tensors.partial + parts * cols, tensors.dbias,
         parts, cols);
}

}  // namespace

std::int64_t norm_parts(std::int64_t rows) {
  const std::int64_t parts = rows / 32;
  return parts < 1 ? 1 : parts > kMostParts ? kMostParts : parts;
}

template <class T>
void norm_forward(const NormForward<T>& tensors, const NormShape& shape, Stream stream) {
  const dim3 grid = grid_of(blocks_for(shape.rows, kRowsPerBlock));
  const bool packs =
      shape.cols % kPack<T> == 0 &&
      aligned(tensors.x, tensors.residual, tensors.weight, tensors.bias, tensors.sum, tensors.y);
  launch(packs ? forward_rows<T, kPack<T>> : forward_rows<T, 1>, grid, kRowThreads, stream, tensors,
         shape.rows, shape.cols, shape.eps);
}

template <class T>
void norm_backward(const NormBackward<T>& tensors, const NormShape& shape, Stream stream) {
  if (shape.rows == 0) return;
  const bool packs =
      shape.cols % kPack<T> == 0 &&
      aligned(tensors.x, tensors.weight, tensors.dy, tensors.dsum, tensors.dx, tensors.partial);
  if (packs) {
    backward_by<T, kPack<T>>(tensors, shape, stream);
  } else {
    backward_by<T, 1>(tensors, shape, stream);
  }
}

template void norm_forward(const NormForward<float>&, const NormShape&, Stream);
template void norm_forward(const NormForward<bfloat16>&, const NormShape&, Stream);
template void norm_backward(const NormBackward<float>&, const NormShape&, Stream);
template void norm_backward(const NormBackward<bfloat16>&, const NormShape&, Stream);

}  // namespace omnima::kernels::cuda
