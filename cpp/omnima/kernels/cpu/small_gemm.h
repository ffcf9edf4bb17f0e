// A register-blocked product of small float32 matrices. Included by level files only.
// C [m, n] (+)= A [m, k] B [k, n]: A has any strides (its elements are broadcast), B's rows are
// contiguous.
#ifndef OMNIMA_LEVEL
#error "small_gemm.h is for <kernel>_<level>.cpp files, which define OMNIMA_LEVEL"
#endif

#include "omnima/kernels/cpu/vector.h"

namespace omnima::kernels::OMNIMA_LEVEL {

constexpr int kRows = kLanes == 16 ? 8 : 4;

struct Left {  // element (i, k) at data[i * row + k * col]
  const float* data;
  std::int64_t row;
  std::int64_t col;
};

template <int Rows, int Vectors>
inline void gemm_block(std::int64_t depth, Left a, const float* b, std::int64_t b_stride, float* c,
                       std::int64_t c_stride, bool add) {
  Vector sum[Rows][Vectors];
  for (int i = 0; i < Rows; ++i) {
    for (int j = 0; j < Vectors; ++j) {
      sum[i][j] = add ? load(c + i * c_stride + j * kLanes) : Vector{};
    }
  }
  for (std::int64_t k = 0; k < depth; ++k) {
    Vector right[Vectors];
    for (int j = 0; j < Vectors; ++j) right[j] = load(b + k * b_stride + j * kLanes);
    const float* left = a.data + k * a.col;
    for (int i = 0; i < Rows; ++i) {
      const Vector spread = broadcast(left[i * a.row]);
      for (int j = 0; j < Vectors; ++j) sum[i][j] += spread * right[j];
    }
  }
  for (int i = 0; i < Rows; ++i) {
    for (int j = 0; j < Vectors; ++j) store(c + i * c_stride + j * kLanes, sum[i][j]);
  }
}

template <int Vectors>
inline void gemm_columns(std::int64_t m, std::int64_t depth, Left a, const float* b,
                         std::int64_t b_stride, float* c, std::int64_t c_stride, bool add) {
  std::int64_t i = 0;
  for (; i + kRows <= m; i += kRows) {
    gemm_block<kRows, Vectors>(depth, {a.data + i * a.row, a.row, a.col}, b, b_stride,
                               c + i * c_stride, c_stride, add);
  }
  for (; i < m; ++i) {
    gemm_block<1, Vectors>(depth, {a.data + i * a.row, a.row, a.col}, b, b_stride, c + i * c_stride,
                           c_stride, add);
  }
}

// n is a multiple of 16.
inline void small_gemm(std::int64_t m, std::int64_t n, std::int64_t depth, Left a, const float* b,
                       std::int64_t b_stride, float* c, std::int64_t c_stride, bool add) {
  std::int64_t j = 0;
  for (; j + 2 * kLanes <= n; j += 2 * kLanes) {
    gemm_columns<2>(m, depth, a, b + j, b_stride, c + j, c_stride, add);
  }
  for (; j < n; j += kLanes) gemm_columns<1>(m, depth, a, b + j, b_stride, c + j, c_stride, add);
}

}  // namespace omnima::kernels::OMNIMA_LEVEL
