// The body of gemm_<level>.cpp: one source, compiled once for each instruction set.
// A packed number is a float, or two bfloat16 of neighbouring depth where the CPU multiplies pairs.
#include <type_traits>

#include "omnima/kernels/cpu/gemm.h"
#include "omnima/kernels/cpu/vector.h"
#include "omnima/kernels/cpu/vector_math.h"

namespace omnima::kernels::OMNIMA_LEVEL {

// A block of sums fills the registers: 24 of 32 wide ones, 12 or 16 narrower ones. A strip is at
// most one vector wide, or whole vectors.
constexpr int kStripRows = kLanes == 16 ? 12 : kLanes == 8 ? 6 : 8;
constexpr int kVectors = 2;
constexpr int kPanelCols = kVectors * kLanes;
constexpr std::int64_t kPrefetchBytes = 512;
// Float sums begin anew after as many products: the rounding of long ones grows with their length.
constexpr std::int64_t kSumLength = 256;

struct Pair {
  std::uint32_t bits;  // the number of even depth in the lower half
};

#ifdef __AVX512BF16__
template <class T>
struct Packed {
  using Number = std::conditional_t<sizeof(T) == 2, Pair, float>;
};
#else
template <class T>
struct Packed {
  using Number = float;
};
#endif
template <class P>
constexpr std::int64_t kGroup = std::is_same_v<P, Pair> ? 2 : 1;

inline Vector multiply_add(Vector sum, const float* left, Vector right) {
  return sum + broadcast(*left) * right;
}
#ifdef __AVX512BF16__
inline Vector multiply_add(Vector sum, const Pair* left, Vector right) {
  int bits;
  std::memcpy(&bits, left, sizeof(bits));
  return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(_mm512_set1_epi32(bits)),
                          reinterpret_cast<__m512bh>(right));
}
#endif

template <int Rows>
using Block = Vector[Rows][kVectors];

// sum[i][j] over the whole depth; `right` advances by one panel row a group.
template <int Rows, class P>
inline __attribute__((always_inline)) void block_sums(const GemmStrip& strip, std::int64_t first,
                                                      const P* right, std::int64_t groups,
                                                      Block<Rows>& sum) {
  const char* left = static_cast<const char*>(strip.data) + first * strip.row_bytes;
  for (int i = 0; i < Rows; ++i) {
    for (int j = 0; j < kVectors; ++j) sum[i][j] = Vector{};
  }
  for (std::int64_t g = 0; g < groups; ++g) {
    Vector b[kVectors];
    for (int j = 0; j < kVectors; ++j) {
      std::memcpy(&b[j], right + j * kLanes, sizeof(Vector));
      __builtin_prefetch(reinterpret_cast<const char*>(right + j * kLanes) + kPrefetchBytes);
    }
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
      const P* at = reinterpret_cast<const P*>(left + i * strip.row_bytes);
      for (int j = 0; j < kVectors; ++j) sum[i][j] = multiply_add(sum[i][j], at, b[j]);
    }
    left += strip.group_bytes;
    right += kPanelCols;
  }
}

// One row of a block that is not a whole panel wide.
template <class T>
inline void finish_part(const Vector* sums, std::int64_t cols, const GemmTarget<T>& target) {
  float row[kPanelCols];
  for (int j = 0; j < kVectors; ++j) store(row + j * kLanes, sums[j]);
  if (target.store == nullptr) {
    for (std::int64_t j = 0; j < cols; ++j) {
      target.sum[j] = target.add ? target.sum[j] + row[j] : row[j];
    }
  } else {
    if (target.add) {
      for (std::int64_t j = 0; j < cols; ++j) row[j] += to_float(target.store[j]);
    }
#pragma omp simd
    for (std::int64_t j = 0; j < cols; ++j) target.store[j] = from_float<T>(row[j]);
  }
}

template <class T>
inline void finish_whole(const Vector* sums, const GemmTarget<T>& target) {
  for (int j = 0; j < kVectors; ++j) {
    const int at = j * kLanes;
    if (target.store == nullptr) {
      store(target.sum + at, target.add ? load(target.sum + at) + sums[j] : sums[j]);
    } else {
      store(target.store + at, target.add ? load(target.store + at) + sums[j] : sums[j]);
    }
  }
}

template <class T>
inline void finish_row(const Vector* sums, std::int64_t cols, const GemmTarget<T>& target) {
  if (cols < kPanelCols) {
    finish_part(sums, cols, target);
  } else {
    finish_whole(sums, target);
  }
}

template <int Rows, class T>
inline __attribute__((always_inline)) void finish(const Block<Rows>& sum, std::int64_t first,
                                                  std::int64_t cols, const GemmTarget<T>& target) {
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) finish_row(sum[i], cols, target.from(first + i, 0));
}

template <int Rows, class T, class P>
void multiply_rows(const GemmStrip& strip, std::int64_t first, const P* panel, std::int64_t cols,
                   std::int64_t groups, const GemmTarget<T>& target) {
  Block<Rows> sum;
  if (std::is_same_v<P, Pair> || groups <= kSumLength) {
    block_sums<Rows>(strip, first, panel, groups, sum);
    return finish<Rows>(sum, first, cols, target);
  }
  block_sums<Rows>(strip, first, panel, kSumLength, sum);
  for (std::int64_t g = kSumLength; g < groups; g += kSumLength) {
    Block<Rows> more;
    GemmStrip rest = strip;
    rest.data = static_cast<const char*>(strip.data) + g * strip.group_bytes;
    block_sums<Rows>(rest, first, panel + g * kPanelCols,
                     groups - g < kSumLength ? groups - g : kSumLength, more);
    for (int i = 0; i < Rows; ++i) {
      for (int j = 0; j < kVectors; ++j) sum[i][j] += more[i][j];
    }
  }
  finish<Rows>(sum, first, cols, target);
}

template <class T>
void multiply(const GemmStrip& strip, const void* panels, std::int64_t cols, std::int64_t depth,
              const GemmTarget<T>& target) {
  using P = typename Packed<T>::Number;
  const std::int64_t groups = (depth + kGroup<P> - 1) / kGroup<P>;
  const P* panel = static_cast<const P*>(panels);
  for (std::int64_t j = 0; j < cols; j += kPanelCols, panel += groups * kPanelCols) {
    const std::int64_t width = cols - j < kPanelCols ? cols - j : kPanelCols;
    const GemmTarget<T> at = target.from(0, j);
    if (strip.rows == kStripRows) {
      multiply_rows<kStripRows>(strip, 0, panel, width, groups, at);
      continue;
    }
    std::int64_t i = 0;
    for (; i + 4 <= strip.rows; i += 4) multiply_rows<4>(strip, i, panel, width, groups, at);
    for (; i + 2 <= strip.rows; i += 2) multiply_rows<2>(strip, i, panel, width, groups, at);
    for (; i < strip.rows; ++i) multiply_rows<1>(strip, i, panel, width, groups, at);
  }
}

// --- packing: out[group][width], zeros behind the last line and the last depth ------------------

template <class P>
using Numbers = std::conditional_t<std::is_same_v<P, Pair>, Bits, Vector>;

template <class T, class P>
inline P packed_number(const T* even, const T* odd) {
  if constexpr (std::is_same_v<P, Pair>) {
    return {even->bits | (odd == nullptr ? 0u : static_cast<std::uint32_t>(odd->bits) << 16)};
  } else {
    return to_float(*even);
  }
}

// Groups first to last - 1, number by number: what the wide versions below leave over.
template <class T, class P>
void pack_part(const T* from, std::int64_t line_stride, std::int64_t depth_stride,
               std::int64_t lines, std::int64_t depth, std::int64_t width, std::int64_t first,
               std::int64_t last, P* out) {
  constexpr std::int64_t kSize = kGroup<P>;
  for (std::int64_t g = first; g < last; ++g) {
    const T* at = from + g * kSize * depth_stride;
    const bool whole = kSize > 1 && g * kSize + 1 < depth;
    for (std::int64_t i = 0; i < lines; ++i) {
      const T* even = at + i * line_stride;
      out[g * width + i] = packed_number<T, P>(even, whole ? even + depth_stride : nullptr);
    }
    for (std::int64_t i = lines; i < width; ++i) out[g * width + i] = P{};
  }
}

inline Bits halves(const bfloat16* from) {
  Halves bits;
  std::memcpy(&bits, from, sizeof(bits));
  return __builtin_convertvector(bits, Bits);
}

// The lines lie next to each other; groups first to last - 1. Whole vectors reach over the end of
// a line, so the last depth and narrow matrices are left to pack_part.
template <int Width, class T, class P>
void pack_across(const T* from, std::int64_t stride, std::int64_t lines, std::int64_t depth,
                 std::int64_t first, std::int64_t last, P* out) {
  constexpr std::int64_t kSize = kGroup<P>;
  constexpr int kWhole = (Width + kLanes - 1) / kLanes;
  std::int64_t g = first;
  if (lines == Width && stride >= kLanes) {
    for (; g < last && (g + 1) * kSize < depth; ++g) {
      const T* even = from + g * kSize * stride;
      for (int k = 0; k < kSize; ++k) __builtin_prefetch(even + (8 * kSize + k) * stride);
      for (int j = 0; j < kWhole; ++j) {
        Numbers<P> numbers;
        if constexpr (std::is_same_v<P, Pair>) {
          numbers = halves(even + j * kLanes) | halves(even + stride + j * kLanes) << 16;
        } else {
          numbers = load(even + j * kLanes);
        }
        std::memcpy(out + g * Width + j * kLanes, &numbers, sizeof(numbers));
      }
    }
  }
  pack_part<T, P>(from, 1, stride, lines, depth, Width, g, last, out);
}

template <int Distance, class V>
inline void exchange(V (&rows)[kLanes]) {
  Bits low, high;
  for (int e = 0; e < kLanes; ++e) {
    low[e] = (e & Distance) == 0 ? e : kLanes + e - Distance;
    high[e] = (e & Distance) == 0 ? e + Distance : kLanes + e;
  }
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) {
    if ((i & Distance) != 0) continue;
    const V a = rows[i], b = rows[i + Distance];
    rows[i] = __builtin_shuffle(a, b, low);
    rows[i + Distance] = __builtin_shuffle(a, b, high);
  }
}

// Transposes a square of vectors: blocks of one, two, four … change places across the diagonal.
template <class V>
inline void transpose(V (&rows)[kLanes]) {
  exchange<1>(rows);
  exchange<2>(rows);
  if constexpr (kLanes > 4) exchange<4>(rows);
  if constexpr (kLanes > 8) exchange<8>(rows);
}

// A line's own numbers are next to each other: squares are transposed on the way. The vectors of
// the last lines reach over the strip; the memory behind it is packed later or spare.
template <int Width, class T, class P>
void pack_along(const T* from, std::int64_t stride, std::int64_t lines, std::int64_t depth,
                P* out) {
  constexpr std::int64_t kSize = kGroup<P>;
  std::int64_t g = 0;
  if (lines == Width) {
    for (; (g + kLanes) * kSize <= depth; g += kLanes) {
      for (int first = 0; first < Width; first += kLanes) {
        Numbers<P> rows[kLanes];
#pragma GCC unroll 16
        for (int i = 0; i < kLanes; ++i) {
          const T* at = from + (first + i) * stride + g * kSize;
          rows[i] = Numbers<P>{};
          if (first + i >= Width) continue;
          __builtin_prefetch(at + 2 * kLanes * kSize);
          if constexpr (std::is_same_v<P, Pair>) {
            std::memcpy(&rows[i], at, sizeof(rows[i]));
          } else {
            rows[i] = load(at);
          }
        }
        transpose(rows);
#pragma GCC unroll 16
        for (int i = 0; i < kLanes; ++i) {
          std::memcpy(out + (g + i) * Width + first, &rows[i], sizeof(rows[i]));
        }
      }
    }
  }
  pack_part<T, P>(from, stride, 1, lines, depth, Width, g, (depth + kSize - 1) / kSize, out);
}

// Some lines, in bundles of Width that are packed one after another. Lines next to each other are
// read a few whole rows at a time, as they lie in memory.
template <int Width, class T, class P>
void pack(const T* from, std::int64_t line_stride, std::int64_t depth_stride, std::int64_t lines,
          std::int64_t depth, P* out) {
  constexpr std::int64_t kRows = 8;
  const std::int64_t groups = (depth + kGroup<P> - 1) / kGroup<P>;
  const auto bundles = [&](auto each) {
    for (std::int64_t i = 0; i < lines; i += Width) {
      each(from + i * line_stride, lines - i < Width ? lines - i : Width, out + i * groups);
    }
  };
  if (line_stride != 1) {
    bundles([&](const T* at, std::int64_t count, P* to) {
      pack_along<Width>(at, line_stride, count, depth, to);
    });
    return;
  }
  for (std::int64_t g = 0; g < groups; g += kRows) {
    bundles([&](const T* at, std::int64_t count, P* to) {
      pack_across<Width>(at, depth_stride, count, depth, g, g + kRows < groups ? g + kRows : groups,
                         to);
    });
  }
}

template <class T>
void pack_left(MatrixView<T> a, std::int64_t rows, std::int64_t depth, void* strips) {
  pack<kStripRows>(a.data, a.row, a.col, rows, depth,
                   static_cast<typename Packed<T>::Number*>(strips));
}

template <class T>
void pack_right(MatrixView<T> b, std::int64_t depth, std::int64_t cols, void* panels) {
  pack<kPanelCols>(b.data, b.col, b.row, cols, depth,
                   static_cast<typename Packed<T>::Number*>(panels));
}

template <class T>
void convert(const float* sums, std::int64_t count, T* out) {
  for_vectors(count, [&](std::int64_t i, auto part) { part.store(out + i, part.load(sums + i)); });
}

}  // namespace omnima::kernels::OMNIMA_LEVEL

#ifdef __AMX_BF16__
#include "omnima/kernels/cpu/gemm_tiles.h"
#endif

namespace omnima::kernels::OMNIMA_LEVEL {

template <class T>
const GemmKernels<T>& gemm_table() {
  using P = typename Packed<T>::Number;
  constexpr std::int64_t kBytes = static_cast<std::int64_t>(sizeof(P)) / kGroup<P>;
  // Rows are read in place where they hold packed numbers already.
  constexpr bool kReadsRows = sizeof(P) == sizeof(T) * kGroup<P>;
#ifdef __AMX_BF16__
  if constexpr (std::is_same_v<T, bfloat16>) {
    static const GemmKernels<T> tiles{kTileStrip,        kPanelCols,  kGroup<P>,  kBytes,
                                      kReadsRows,        kTileGroups, pack_tiles, pack_right<T>,
                                      multiply_on_tiles, convert<T>};
    return tiles;
  }
#endif
  static const GemmKernels<T> table{kStripRows,  kPanelCols, kGroup<P>,    kBytes,
                                    kReadsRows,  1,          pack_left<T>, pack_right<T>,
                                    multiply<T>, convert<T>};
  return table;
}
template const GemmKernels<float>& gemm_table<float>();
template const GemmKernels<bfloat16>& gemm_table<bfloat16>();

}  // namespace omnima::kernels::OMNIMA_LEVEL
