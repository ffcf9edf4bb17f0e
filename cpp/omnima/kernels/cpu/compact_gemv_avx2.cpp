// compact_gemv with 8 lanes.
#ifdef OMNIMA_X86
#include "omnima/kernels/cpu/compact_gemv_tile.h"
#include "omnima/kernels/cpu/lanes_avx2.h"

namespace omnima::kernels {
namespace {

__m256i load(const std::uint8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}

class Unpack {
 public:
  using V = Avx2;
  struct Places {  // of a piece, a byte each
    __m256i first, second;
  };
  using Both = Places;  // of two
  static constexpr bool kManyRegisters = false;

  explicit Unpack(const std::uint8_t (&highs)[kCompactHighs])
      : highs_(
            _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(highs)))) {
  }

  static Both both(const std::uint8_t* places) { return {load(places), load(places + 32)}; }
  static Places low(const Both& both) { return {low(both.first), low(both.second)}; }
  static Places high(const Both& both) { return {high(both.first), high(both.second)}; }
  static Places alone(const std::uint8_t* places) {
    const __m256i both = load(places);
    return {low(both), high(both)};
  }

  // Half of the bytes makes the lower half of each 16 numbers, the other the upper one.
  void numbers(const std::uint8_t* lows, const Places& places, __m256 (&out)[8]) const {
    half(load(lows), places.first, out);
    half(load(lows + 32), places.second, out + 1);
  }

 private:
  static __m256i low(__m256i both) { return _mm256_and_si256(both, _mm256_set1_epi8(15)); }
  static __m256i high(__m256i both) { return low(_mm256_srli_epi16(both, 4)); }

  void half(__m256i lower, __m256i places, __m256* out) const {
    const __m256i upper = _mm256_shuffle_epi8(highs_, places);
    const __m256i words[] = {_mm256_unpacklo_epi8(lower, upper),
                             _mm256_unpackhi_epi8(lower, upper)};
    for (int i = 0; i < 2; ++i) {
      out[4 * i] = _mm256_castsi256_ps(_mm256_slli_epi32(words[i], 16));
      out[4 * i + 2] = _mm256_castsi256_ps(
          _mm256_and_si256(words[i], _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
    }
  }

  __m256i highs_;
};

__m256i words(const bfloat16* numbers) {
  const auto widened = [&](int from) {
    return _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(numbers + from)));
  };
  return _mm256_or_si256(widened(0), _mm256_slli_epi32(widened(16), 16));
}

std::uint32_t encode_half(const bfloat16* numbers, const std::uint8_t (&highs)[kCompactHighs],
                          std::uint8_t* lows, std::uint8_t* places) {
  const __m256i first = words(numbers), second = words(numbers + 32);
  const __m256i byte = _mm256_set1_epi16(255);
  const auto store = [](std::uint8_t* to, __m256i bytes) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), bytes);
  };
  store(lows, _mm256_packus_epi16(_mm256_and_si256(first, byte), _mm256_and_si256(second, byte)));
  const __m256i upper =
      _mm256_packus_epi16(_mm256_srli_epi16(first, 8), _mm256_srli_epi16(second, 8));
  __m256i found = _mm256_setzero_si256(), there = found;
#pragma GCC unroll 16
  for (int i = 0; i < kCompactHighs; ++i) {
    const __m256i here = _mm256_cmpeq_epi8(upper, _mm256_set1_epi8(static_cast<char>(highs[i])));
    found = _mm256_or_si256(found, _mm256_and_si256(here, _mm256_set1_epi8(static_cast<char>(i))));
    there = _mm256_or_si256(there, here);
  }
  store(places, found);
  return ~static_cast<std::uint32_t>(_mm256_movemask_epi8(there));
}

std::uint64_t encode(const bfloat16* numbers, const std::uint8_t (&highs)[kCompactHighs],
                     std::uint8_t* lows, std::uint8_t* places) {
  const std::uint64_t first = encode_half(numbers, highs, lows, places);
  const std::uint64_t second = encode_half(numbers + 8, highs, lows + 32, places + 32);
  return first | second << 32;
}

}  // namespace

CompactKernels compact_kernels_avx2() {
  return {compact_range<Unpack>, compact_unpack<Unpack>, encode};
}

}  // namespace omnima::kernels
#endif
