// Matrix products C = A B by register blocks: A is cut into strips of rows and B into panels of
// columns, both packed so that the innermost loop reads them in order. The loops over strips,
// panels and depth are the caller's (ops/product.cpp), as are the threads.
#pragma once

#include <cstdint>

#include "omnima/kernels/cpu/cpu_features.h"
#include "omnima/kernels/cpu/number_types.h"

// Level files include this header: no copy of a function compiled for one level may serve another.
#define OMNIMA_INLINE inline __attribute__((always_inline))

namespace omnima::kernels {

// Element (i, j) lies at data[i * row + j * col]; one of the strides is 1.
template <class T>
struct MatrixView {
  const T* data;
  std::int64_t row;
  std::int64_t col;
  OMNIMA_INLINE MatrixView from(std::int64_t i, std::int64_t j) const {
    return {data + i * row + j * col, row, col};
  }
};

// Some rows of A: element group (i, g) lies at data + i * row_bytes + g * group_bytes; where the
// kernel reads tiles, groups 16 g to 16 g + 15 lie side by side there.
struct GemmStrip {
  const void* data;
  std::int64_t row_bytes;
  std::int64_t group_bytes;
  std::int64_t rows;  // at most strip_rows
};

// Where a product goes: to numbers of the storage type, or to float32 sums.
template <class T>
struct GemmTarget {
  T* store = nullptr;       // rounded, or null
  float* sum = nullptr;     // used when `store` is null
  bool add = false;         // C += A B, else C = A B
  std::int64_t stride = 0;  // from row to row of C
  OMNIMA_INLINE GemmTarget from(std::int64_t i, std::int64_t j) const {
    const std::int64_t at = i * stride + j;
    return {store == nullptr ? nullptr : store + at, sum == nullptr ? nullptr : sum + at, add,
            stride};
  }
};

template <class T>
struct GemmKernels {
  std::int64_t strip_rows;
  std::int64_t panel_cols;
  std::int64_t group;         // numbers of neighbouring depth that lie side by side when packed
  std::int64_t packed_bytes;  // of one packed number
  bool reads_rows;            // a strip may be rows of A themselves, if the depth is whole groups
  std::int64_t tile_groups;   // of a row that lie side by side in a packed strip
  // Packs rows of A over `depth` into strips one after another, each of strip_bytes(depth); may
  // write up to 64 bytes behind them. What a strip lacks of rows and depth is zeros.
  void (*pack_left)(MatrixView<T> a, std::int64_t rows, std::int64_t depth, void* strips);
  // Packs columns of B into panels one after another, each of panel_bytes(depth), likewise.
  void (*pack_right)(MatrixView<T> b, std::int64_t depth, std::int64_t cols, void* panels);
  // The strip times `cols` columns in panels that lie one after another.
  void (*multiply)(const GemmStrip& strip, const void* panels, std::int64_t cols,
                   std::int64_t depth, const GemmTarget<T>& target);
  // Rounds `count` sums to the storage type.
  void (*convert)(const float* sums, std::int64_t count, T* out);

  OMNIMA_INLINE std::int64_t groups(std::int64_t depth) const {
    return (depth + group - 1) / group;
  }
  OMNIMA_INLINE std::int64_t strip_bytes(std::int64_t depth) const {
    const std::int64_t tiles = (groups(depth) + tile_groups - 1) / tile_groups;
    return tiles * tile_groups * group * strip_rows * packed_bytes;
  }
  // `rows` of a strip that pack_left left at `data`.
  OMNIMA_INLINE GemmStrip packed_strip(const void* data, std::int64_t rows) const {
    const std::int64_t number = group * packed_bytes;
    return {data, number * tile_groups, number * strip_rows, rows};
  }
  // `rows` of A themselves.
  template <class View>
  OMNIMA_INLINE GemmStrip strip_in_place(const View& a, std::int64_t rows) const {
    constexpr std::int64_t kSize = sizeof(T);
    return {a.data, a.row * kSize, group * kSize, rows};
  }
  OMNIMA_INLINE std::int64_t panel_bytes(std::int64_t depth) const {
    return groups(depth) * group * panel_cols * packed_bytes;
  }
};

// The kernels of an instruction-set level; a level without its own takes the next lower one.
template <class T>
const GemmKernels<T>& gemm_kernels(Level level = active_level());

}  // namespace omnima::kernels
