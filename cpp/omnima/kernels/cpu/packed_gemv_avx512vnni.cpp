// packed_gemv with one register of 16 outputs: vpdpbusd adds four products of bytes to each.
#ifdef OMNIMA_X86
// GCC 12 warns of its own header's deliberately undefined vectors (GCC bug 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include "omnima/kernels/cpu/packed_gemv_tile.h"

namespace omnima::kernels {
namespace {

struct VnniTile {
  static constexpr int kRowsOfTwo = 4;
  using Floats = __m512;
  using Bytes = __m512i;
  template <int kBits, bool kSplit>
  struct Sum {
    __m512i a, b;
    void begin(std::int32_t offset) {
      a = _mm512_set1_epi32(offset);
      if (kSplit) b = _mm512_setzero_si512();
    }
    void add(Bytes even, __m512i quad, Bytes odd, __m512i next) {
      a = _mm512_dpbusd_epi32(a, even, quad);
      auto& second = kSplit ? b : a;
      second = _mm512_dpbusd_epi32(second, odd, next);
    }
    Floats end() const { return _mm512_cvtepi32_ps(kSplit ? _mm512_add_epi32(a, b) : a); }
  };
  static __m512i quad(const std::int8_t* x) {
    std::int32_t four;
    std::memcpy(&four, x, sizeof(four));
    return _mm512_set1_epi32(four);
  }
  static Bytes load(const std::uint8_t* from) { return _mm512_loadu_si512(from); }
  static Bytes low(Bytes v) { return _mm512_and_si512(v, _mm512_set1_epi8(15)); }
  static Bytes high(Bytes v) { return low(_mm512_srli_epi16(v, 4)); }
  static Floats zero() { return _mm512_setzero_ps(); }
  static Floats halves(const std::uint8_t* from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
  static __m128i sixteen(const std::uint8_t* from) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  }
  static Floats bytes(const std::uint8_t* from) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(sixteen(from)));
  }
  static Floats signed_bytes(const std::uint8_t* from) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(sixteen(from)));
  }
  static Floats times(Floats x, float y) { return _mm512_mul_ps(x, _mm512_set1_ps(y)); }
  static Floats times(Floats x, Floats y) { return _mm512_mul_ps(x, y); }
  static Floats add(Floats x, Floats y) { return _mm512_add_ps(x, y); }
  // The operations of round_plainly, 16 numbers at once.
  static void round(const float* x, std::int8_t* levels, float& scale, std::int32_t* totals) {
    const __m512 first = _mm512_loadu_ps(x), second = _mm512_loadu_ps(x + kHalfPiece);
    const __m512i bits = _mm512_set1_epi32(kMagnitude);
    const __m512i most = _mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(first), bits),
                                          _mm512_and_si512(_mm512_castps_si512(second), bits));
    const float inverse = inverse_of(_mm512_reduce_max_epu32(most), scale);
    const __m256i both =
        inverse == 0.0f ? _mm256_setzero_si256()
                        : _mm256_set_m128i(levels_of(second, inverse), levels_of(first, inverse));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(levels), both);
    const __m256i fours = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_set1_epi8(1), both);
    const __m256i twos = _mm256_hadd_epi32(fours, fours), sums = _mm256_hadd_epi32(twos, twos);
    totals[0] = _mm256_cvtsi256_si32(sums);
    totals[1] = _mm_cvtsi128_si32(_mm256_extracti128_si256(sums, 1));
  }
  static __m128i levels_of(__m512 x, float inverse) {
    const __m512 shifted =
        _mm512_add_ps(_mm512_mul_ps(x, _mm512_set1_ps(inverse)), _mm512_set1_ps(kShift));
    return _mm512_cvtepi32_epi8(
        _mm512_sub_epi32(_mm512_castps_si512(shifted), _mm512_set1_epi32(kShifted)));
  }
  static void store(float* to, Floats x) { _mm512_storeu_ps(to, x); }
};

}  // namespace

PackedKernels packed_kernels_avx512vnni() { return packed_kernels<VnniTile>(); }

}  // namespace omnima::kernels
#endif
