// half_gemv where an instruction multiplies pairs: 32 numbers of an output meet those of some rows.
#ifdef OMNIMA_X86
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // of GCC 12's own header (GCC bug 105593)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include <cstring>

#include "omnima/kernels/cpu/half_gemv.h"
#include "omnima/kernels/cpu/lanes_avx512.h"

namespace omnima::kernels {
namespace {

constexpr std::int64_t kNumbers = 32;  // of a vector
// One group meets several rows at once; their sums fill the registers.
constexpr std::int64_t kGroup = 4, kRows = 6;  // outputs, rows
constexpr std::int64_t kAhead = 1024;          // numbers, where a group is read once

std::int64_t padded(std::int64_t inputs) { return (inputs + kNumbers - 1) / kNumbers * kNumbers; }

// Rows lie one behind the other, filled up to whole vectors with zeros.
std::int64_t rows_bytes(std::int64_t rows, std::int64_t inputs) {
  return rows * padded(inputs) * static_cast<std::int64_t>(sizeof(bfloat16));
}

__mmask16 first_of(std::int64_t count) {
  return static_cast<__mmask16>(count >= 16 ? 0xffff : count <= 0 ? 0 : (1 << count) - 1);
}

void pack(const float* x, std::int64_t first, std::int64_t last, std::int64_t inputs,
          void* packed) {
  auto* out = static_cast<bfloat16*>(packed) + first * padded(inputs);
  for (std::int64_t row = first; row < last; ++row) {
    for (std::int64_t i = 0; i < inputs; i += kNumbers, out += kNumbers) {
      const float* from = x + row * inputs + i;
      const __m512 low = _mm512_maskz_loadu_ps(first_of(inputs - i), from);
      const __m512 high = _mm512_maskz_loadu_ps(first_of(inputs - i - 16), from + 16);
      const __m512bh both = _mm512_cvtne2ps_pbh(high, low);
      std::memcpy(out, &both, sizeof(both));
    }
  }
}

using V = Avx512;

// Some rows from `row` on, of the outputs from `o` on. Of the weights that lie `ahead` numbers
// behind those of the group, those of the outputs ahead_begin..ahead_end are asked for meanwhile.
struct Pass {
  std::int64_t o, row, ahead;
  int ahead_begin, ahead_end;
};

template <int O, int R>
inline void multiply(const HalfGemv& g, const Pass& pass) {
  const std::int64_t wide = padded(g.inputs), whole = g.inputs / kNumbers * kNumbers;
  const bfloat16* weight = g.weight + pass.o * g.inputs;
  const bfloat16* x = static_cast<const bfloat16*>(g.x) + pass.row * wide;
  __m512 sums[R][O];
  for (auto& row : sums) {
    for (auto& sum : row) sum = _mm512_setzero_ps();
  }
  const auto add = [&](std::int64_t k, auto weights_at) {
    __m512i of_x[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) of_x[r] = _mm512_loadu_si512(x + r * wide + k);
#pragma GCC unroll 8
    for (int i = 0; i < O; ++i) {
      const auto w = reinterpret_cast<__m512bh>(weights_at(weight + i * g.inputs + k));
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        sums[r][i] = _mm512_dpbf16_ps(sums[r][i], w, reinterpret_cast<__m512bh>(of_x[r]));
      }
    }
  };
  for (std::int64_t k = 0; k < whole; k += kNumbers) {
    for (int i = pass.ahead_begin; R > 1 && i < pass.ahead_end; ++i) {
      __builtin_prefetch(weight + pass.ahead + i * g.inputs + k);
    }
    add(k, [](const bfloat16* at) {
      if constexpr (R == 1) __builtin_prefetch(at + kAhead);
      return _mm512_loadu_si512(at);
    });
  }
  if (whole < g.inputs) {
    const auto mask = static_cast<__mmask32>((std::uint64_t{1} << (g.inputs - whole)) - 1);
    add(whole, [&](const bfloat16* at) { return _mm512_maskz_loadu_epi16(mask, at); });
  }
  const float* bias = g.bias ? g.bias + pass.o : nullptr;
  float* y = g.y + pass.row * g.y_stride + pass.o;
  if constexpr (O == 4) {
    constexpr float kNone[O]{};
    for (int r = 0; r < R; ++r) V::write_sums(sums[r], bias ? bias : kNone, y + r * g.y_stride);
  } else {
    for (int r = 0; r < R; ++r) {
      for (int i = 0; i < O; ++i) y[r * g.y_stride + i] = V::sum(sums[r][i]) + (bias ? bias[i] : 0);
    }
  }
}

// All rows of a group, which stays in the first cache. Passes share the fetching of a later one.
template <int O>
inline void all_rows(const HalfGemv& g, std::int64_t o) {
  const int passes = static_cast<int>((g.rows + kRows - 1) / kRows);
  const std::int64_t ahead = passes == 1 ? kAhead : 2 * O * g.inputs;
  std::int64_t row = 0;
  int done = 0;
  const auto pass = [&]<int R>() {
    multiply<O, R>(g, {o, row, ahead, O * done / passes, O * (done + 1) / passes});
    row += R;
    ++done;
  };
  while (g.rows - row > 2 * kRows) pass.template operator()<6>();
  // The rest as evenly as may be: passes of few rows read the weights for little.
  for (std::int64_t left = g.rows - row; left > 0; left = g.rows - row) {
    switch (left > kRows ? (left + 1) / 2 : left) {
      case 6:
        pass.template operator()<6>();
        break;
      case 5:
        pass.template operator()<5>();
        break;
      case 4:
        pass.template operator()<4>();
        break;
      case 3:
        pass.template operator()<3>();
        break;
      case 2:
        pass.template operator()<2>();
        break;
      default:
        pass.template operator()<1>();
    }
  }
}

void gemv(const HalfGemv& g, std::int64_t begin, std::int64_t end) {
  std::int64_t o = begin;
  for (; o + kGroup <= end; o += kGroup) all_rows<kGroup>(g, o);
  for (; o < end; ++o) all_rows<1>(g, o);
}

}  // namespace

HalfGemvKernels half_gemv_kernels_avx512bf16() { return {rows_bytes, pack, gemv}; }

}  // namespace omnima::kernels
#endif
