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
  static void store(float* to, Floats x) { _mm512_storeu_ps(to, x); }
};

}  // namespace

PackedKernels packed_kernels_avx512vnni() { return packed_kernels<VnniTile>(); }

}  // namespace omnima::kernels
#endif
