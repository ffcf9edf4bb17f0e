// Sixteen floats and sixteen integers, for the files of this level alone: the names are private to
// each.
#pragma once

// GCC 12 warns of its own header's deliberately undefined vectors (GCC bug 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "omnima/kernels/cpu/number_types.h"

namespace omnima::kernels {
namespace {

struct Avx512 {
  static constexpr int kWidth = 16;
  using Type = __m512;
  static Type zero() { return _mm512_setzero_ps(); }
  static Type load(const float* p) { return _mm512_loadu_ps(p); }
  static Type load_part(const float* p, int count) {
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), p);
  }
  static void store(float* p, Type v) { _mm512_storeu_ps(p, v); }
  // Rounds to nearest, ties to even; NaN stays NaN.
  static void store(bfloat16* p, Type v) {
    const __m512i bits = _mm512_castps_si512(v), high = _mm512_srli_epi32(bits, 16);
    const __m512i odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
    const __m512i above = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
    const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, above), 16);
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    const __m512i all = _mm512_mask_or_epi32(rounded, nan, high, _mm512_set1_epi32(0x40));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(all));
  }
  static Type multiply_add(Type a, Type b, Type sum) { return _mm512_fmadd_ps(a, b, sum); }
  static float sum(Type v) { return _mm512_reduce_add_ps(v); }
  // The sums of four, each made as above, plus biases.
  static void write_sums(const Type (&of)[4], const float* bias, float* out) {
    const Type low = halves_added(of[0], of[1]), high = halves_added(of[2], of[3]);
    Type four =
        _mm512_add_ps(_mm512_shuffle_f32x4(low, high, 0x88), _mm512_shuffle_f32x4(low, high, 0xdd));
    four = _mm512_add_ps(four, _mm512_permute_ps(four, 0x4e));
    four = _mm512_add_ps(four, _mm512_permute_ps(four, 0xb1));
    const __m512i firsts = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    const __m128 sums = _mm512_castps512_ps128(_mm512_permutexvar_ps(firsts, four));
    _mm_storeu_ps(out, _mm_add_ps(sums, _mm_loadu_ps(bias)));
  }
  static Type halves_added(Type a, Type b) {
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
  }

  // For the blocks of stored weights.
  using Ints = __m512i;
  static Type set(float x) { return _mm512_set1_ps(x); }
  static Type multiply(Type a, Type b) { return _mm512_mul_ps(a, b); }
  static Type add(Type a, Type b) { return _mm512_add_ps(a, b); }
  static Ints set(std::int32_t x) { return _mm512_set1_epi32(x); }
  static Ints bytes(const std::uint8_t* p) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static Ints signed_bytes(const std::uint8_t* p) {
    return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static Ints both(Ints a, Ints b) { return _mm512_and_si512(a, b); }
  static Ints either(Ints a, Ints b) { return _mm512_or_si512(a, b); }
  static Ints add(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
  static Ints right(Ints a, int bits) { return _mm512_srl_epi32(a, _mm_cvtsi32_si128(bits)); }
  static Ints left(Ints a, int bits) { return _mm512_sll_epi32(a, _mm_cvtsi32_si128(bits)); }
  static Type floats(Ints a) { return _mm512_cvtepi32_ps(a); }
  // 16 where a bit of `bits`, from `first` on, is set.
  static Ints sixteens(std::uint32_t bits, int first) {
    return _mm512_maskz_set1_epi32(static_cast<__mmask16>(bits >> first), 16);
  }
  static Type halves(const std::uint8_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  // The two halves at p and at each of the places that follow `stride` bytes apart, as floats: of
  // the first `count`, and no byte beyond theirs is read; `out` has room for 16 pairs.
  static void write_halves(const std::uint8_t* p, int stride, int count, float* out) {
    const Ints lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const Ints places = _mm512_mullo_epi32(lane, set(stride));
    const auto wanted = static_cast<__mmask16>(count >= kWidth ? 0xFFFF : (1u << count) - 1);
    const Ints both = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), wanted, places, p, 1);
    store(out, _mm512_cvtph_ps(_mm512_castsi512_si256(both)));
    store(out + kWidth, _mm512_cvtph_ps(_mm512_extracti64x4_epi64(both, 1)));
  }
  static Type brain_floats(const std::uint8_t* p) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
  // scale * (level + from) + least of 16 levels, rounded after each step: a table of all of them.
  using Levels = Type;
  template <bool kLeast>
  static Levels levels(float scale, int from, float least) {
    const Ints lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const Type scaled = multiply(floats(add(lane, set(from))), set(scale));
    return kLeast ? add(scaled, set(least)) : scaled;
  }
  // Of the lowest four bits.
  template <bool kLeast>
  static Type look(const Levels& levels, Ints level) {
    return _mm512_permutexvar_ps(level, levels);
  }
  // One of 16 numbers by the lowest four bits.
  using Table = Type;
  static Table table(const float (&numbers)[16]) { return load(numbers); }
  static Type pick(Table numbers, Ints which) { return _mm512_permutexvar_ps(which, numbers); }
};

}  // namespace
}  // namespace omnima::kernels
