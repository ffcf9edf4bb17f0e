// Eight floats and eight integers, for the files of this level alone: the names are private to
// each.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "omnima/kernels/cpu/number_types.h"

namespace omnima::kernels {
namespace {

struct Avx2 {
  static constexpr int kWidth = 8;
  using Type = __m256;
  static Type zero() { return _mm256_setzero_ps(); }
  static Type load(const float* p) { return _mm256_loadu_ps(p); }
  static Type load_part(const float* p, int count) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_maskload_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32(count), lane));
  }
  static void store(float* p, Type v) { _mm256_storeu_ps(p, v); }
  // Rounds to nearest, ties to even; NaN stays NaN.
  static void store(bfloat16* p, Type v) {
    const __m256i bits = _mm256_castps_si256(v), high = _mm256_srli_epi32(bits, 16);
    const __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
    const __m256i above = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
    const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, above), 16);
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    const __m256i quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
    const __m256i all = _mm256_blendv_epi8(rounded, quiet, nan);
    const __m128i low = _mm256_castsi256_si128(all), up = _mm256_extracti128_si256(all, 1);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_packus_epi32(low, up));
  }
  static Type multiply_add(Type a, Type b, Type sum) { return _mm256_fmadd_ps(a, b, sum); }
  static float sum(Type v) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
  }
  // The sums of four, each made as above, plus biases.
  static void write_sums(const Type (&of)[4], const float* bias, float* out) {
    const Type low = halves_added(of[0], of[1]), high = halves_added(of[2], of[3]);
    // Of each 128 bits: two of one, two of another.
    const Type two =
        _mm256_add_ps(_mm256_shuffle_ps(low, high, 0x44), _mm256_shuffle_ps(low, high, 0xee));
    const Type one = _mm256_add_ps(two, _mm256_permute_ps(two, 0xb1));
    const __m128 firsts = _mm256_castps256_ps128(one), seconds = _mm256_extractf128_ps(one, 1);
    const __m128 sums = _mm_shuffle_ps(firsts, seconds, 0x88);  // of 0, 2, 1, 3
    _mm_storeu_ps(out, _mm_add_ps(_mm_permute_ps(sums, 0xd8), _mm_loadu_ps(bias)));
  }
  static Type halves_added(Type a, Type b) {
    return _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
  }

  // For the blocks of stored weights.
  using Ints = __m256i;
  static Type set(float x) { return _mm256_set1_ps(x); }
  static Type multiply(Type a, Type b) { return _mm256_mul_ps(a, b); }
  static Type add(Type a, Type b) { return _mm256_add_ps(a, b); }
  static Ints set(std::int32_t x) { return _mm256_set1_epi32(x); }
  static Ints bytes(const std::uint8_t* p) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  }
  static Ints signed_bytes(const std::uint8_t* p) {
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  }
  static Ints both(Ints a, Ints b) { return _mm256_and_si256(a, b); }
  static Ints either(Ints a, Ints b) { return _mm256_or_si256(a, b); }
  static Ints add(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
  static Ints right(Ints a, int bits) { return _mm256_srl_epi32(a, _mm_cvtsi32_si128(bits)); }
  static Ints left(Ints a, int bits) { return _mm256_sll_epi32(a, _mm_cvtsi32_si128(bits)); }
  static Type floats(Ints a) { return _mm256_cvtepi32_ps(a); }
  // 16 where a bit of `bits`, from `first` on, is set.
  static Ints sixteens(std::uint32_t bits, int first) {
    const Ints lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const Ints here = _mm256_and_si256(_mm256_set1_epi32(static_cast<int>(bits >> first)), lane);
    return _mm256_and_si256(_mm256_cmpeq_epi32(here, lane), _mm256_set1_epi32(16));
  }
  static Type halves(const std::uint8_t* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  // The two halves at p and at each of the places that follow `stride` bytes apart, as floats: of
  // the first `count`, and no byte beyond theirs is read; `out` has room for 8 pairs.
  static void write_halves(const std::uint8_t* p, int stride, int count, float* out) {
    const Ints lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const Ints places = _mm256_mullo_epi32(lane, set(stride));
    const Ints wanted = _mm256_cmpgt_epi32(set(count), lane);
    const Ints both = _mm256_mask_i32gather_epi32(
        _mm256_setzero_si256(), reinterpret_cast<const int*>(p), places, wanted, 1);
    store(out, _mm256_cvtph_ps(_mm256_castsi256_si128(both)));
    store(out + kWidth, _mm256_cvtph_ps(_mm256_extracti128_si256(both, 1)));
  }
  static Type brain_floats(const std::uint8_t* p) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }
  // scale * (level + from) + least of 16 levels, rounded after each step.
  struct Levels {
    Type scale, least;
    Ints from;
  };
  template <bool kLeast>
  static Levels levels(float scale, int from, float least) {
    return {set(scale), set(least), set(from)};
  }
  // Of the lowest four bits.
  template <bool kLeast>
  static Type look(const Levels& levels, Ints level) {
    const Type number = floats(add(both(level, set(15)), levels.from));
    const Type scaled = multiply(number, levels.scale);
    return kLeast ? add(scaled, levels.least) : scaled;
  }
  // One of 16 numbers by the lowest four bits.
  struct Table {
    Type low, high;
  };
  static Table table(const float (&numbers)[16]) { return {load(numbers), load(numbers + 8)}; }
  static Type pick(const Table& numbers, Ints which) {
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(numbers.low, which),
                            _mm256_permutevar8x32_ps(numbers.high, which),
                            _mm256_castsi256_ps(_mm256_slli_epi32(which, 28)));
  }
};

}  // namespace
}  // namespace omnima::kernels
