// compact_gemv with 16 lanes.
#ifdef OMNIMA_X86
#include "omnima/kernels/cpu/compact_gemv_tile.h"
#include "omnima/kernels/cpu/lanes_avx512.h"

namespace omnima::kernels {
namespace {

class Unpack {
 public:
  using V = Avx512;
  using Both = __m512i;    // places of two pieces
  using Places = __m512i;  // of one, a byte each
  static constexpr bool kManyRegisters = true;

  explicit Unpack(const std::uint8_t (&highs)[kCompactHighs])
      : highs_(_mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(highs)))) {}

  static Both both(const std::uint8_t* places) { return _mm512_loadu_si512(places); }
  static Places low(Both both) { return _mm512_and_si512(both, _mm512_set1_epi8(15)); }
  static Places high(Both both) { return low(_mm512_srli_epi16(both, 4)); }
  static Places alone(const std::uint8_t* places) {
    const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(places));
    return low(_mm512_inserti64x4(_mm512_castsi256_si512(both), _mm256_srli_epi16(both, 4), 1));
  }

  void numbers(const std::uint8_t* lows, Places places, __m512 (&out)[4]) const {
    const __m512i upper = _mm512_shuffle_epi8(highs_, places), lower = _mm512_loadu_si512(lows);
    const __m512i words[] = {_mm512_unpacklo_epi8(lower, upper),
                             _mm512_unpackhi_epi8(lower, upper)};
    for (int i = 0; i < 2; ++i) {
      out[2 * i] = _mm512_castsi512_ps(_mm512_slli_epi32(words[i], 16));
      out[2 * i + 1] = _mm512_castsi512_ps(
          _mm512_and_si512(words[i], _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
    }
  }

 private:
  __m512i highs_;
};

__m512i words(const bfloat16* numbers) {
  const auto widened = [&](int from) {
    return _mm512_cvtepu16_epi32(
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(numbers + from)));
  };
  return _mm512_or_si512(widened(0), _mm512_slli_epi32(widened(16), 16));
}

std::uint64_t encode(const bfloat16* numbers, const std::uint8_t (&highs)[kCompactHighs],
                     std::uint8_t* lows, std::uint8_t* places) {
  const __m512i first = words(numbers), second = words(numbers + 32);
  const __m512i byte = _mm512_set1_epi16(255);
  _mm512_storeu_si512(
      lows, _mm512_packus_epi16(_mm512_and_si512(first, byte), _mm512_and_si512(second, byte)));
  const __m512i upper =
      _mm512_packus_epi16(_mm512_srli_epi16(first, 8), _mm512_srli_epi16(second, 8));
  __m512i found = _mm512_setzero_si512();
  __mmask64 there = 0;
#pragma GCC unroll 16
  for (int i = 0; i < kCompactHighs; ++i) {
    const __mmask64 here =
        _mm512_cmpeq_epi8_mask(upper, _mm512_set1_epi8(static_cast<char>(highs[i])));
    found = _mm512_mask_mov_epi8(found, here, _mm512_set1_epi8(static_cast<char>(i)));
    there |= here;
  }
  _mm512_storeu_si512(places, found);
  return ~there;
}

}  // namespace

CompactKernels compact_kernels_avx512() {
  return {compact_range<Unpack>, compact_unpack<Unpack>, encode};
}

}  // namespace omnima::kernels
#endif
