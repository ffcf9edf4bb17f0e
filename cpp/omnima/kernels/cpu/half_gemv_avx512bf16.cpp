// half_gemv where an instruction multiplies pairs: 32 numbers of an output meet those of some rows.
#ifdef OMNIMA_X86
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // of GCC 12's own header (GCC bug 105593)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include <cstring>

#include "omnima/kernels/cpu/half_gemv.h"

namespace omnima::kernels {
namespace {

constexpr std::int64_t kNumbers = 32;       // of a vector
constexpr std::int64_t kBytesAhead = 2048;  // weights are asked for before their use

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

template <int O, int R>
inline void multiply(const HalfGemv& g, std::int64_t o, std::int64_t row) {
  const std::int64_t wide = padded(g.inputs), whole = g.inputs / kNumbers * kNumbers;
  const bfloat16* weight = g.weight + o * g.inputs;
  const bfloat16* x = static_cast<const bfloat16*>(g.x) + row * wide;
  __m512 sums[O][R];
  for (auto& output : sums) {
    for (auto& sum : output) sum = _mm512_setzero_ps();
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
        sums[i][r] = _mm512_dpbf16_ps(sums[i][r], w, reinterpret_cast<__m512bh>(of_x[r]));
      }
    }
  };
  for (std::int64_t k = 0; k < whole; k += kNumbers) {
    add(k, [](const bfloat16* at) {
      __builtin_prefetch(reinterpret_cast<const char*>(at) + kBytesAhead);
      return _mm512_loadu_si512(at);
    });
  }
  if (whole < g.inputs) {
    const auto mask = static_cast<__mmask32>((std::uint64_t{1} << (g.inputs - whole)) - 1);
    add(whole, [&](const bfloat16* at) { return _mm512_maskz_loadu_epi16(mask, at); });
  }
  for (int i = 0; i < O; ++i) {
    const float bias = g.bias ? g.bias[o + i] : 0.0f;
    for (int r = 0; r < R; ++r) {
      g.y[(row + r) * g.y_stride + o + i] = _mm512_reduce_add_ps(sums[i][r]) + bias;
    }
  }
}

// All rows of the outputs o..o+O, which stay in the first cache.
template <int O>
inline void all_rows(const HalfGemv& g, std::int64_t o) {
  std::int64_t row = 0;
  for (; row + 4 <= g.rows; row += 4) multiply<O, 4>(g, o, row);
  for (; row + 2 <= g.rows; row += 2) multiply<O, 2>(g, o, row);
  if (row < g.rows) multiply<O, 1>(g, o, row);
}

void gemv(const HalfGemv& g, std::int64_t begin, std::int64_t end) {
  std::int64_t o = begin;
  for (; o + 4 <= end; o += 4) all_rows<4>(g, o);
  for (; o < end; ++o) all_rows<1>(g, o);
}

}  // namespace

HalfGemvKernels half_gemv_kernels_avx512bf16() { return {rows_bytes, pack, gemv}; }

}  // namespace omnima::kernels
#endif
