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

__m512i quad_of(const std::int8_t* x) {
  std::int32_t quad;
  std::memcpy(&quad, x, sizeof(quad));
  return _mm512_set1_epi32(quad);
}

struct VnniTile {
  using Floats = __m512;
  using Bytes = __m512i;
  // Two sums, so that an addition need not wait for the one before.
  template <int kBits>
  struct Sum {
    __m512i a, b;
    void begin(std::int32_t offset) {
      a = _mm512_set1_epi32(offset);
      b = _mm512_setzero_si512();
    }
    void add(Bytes even, const std::int8_t* x, Bytes odd, const std::int8_t* next) {
      a = _mm512_dpbusd_epi32(a, even, quad_of(x));
      b = _mm512_dpbusd_epi32(b, odd, quad_of(next));
    }
    Floats end() const { return _mm512_cvtepi32_ps(_mm512_add_epi32(a, b)); }
  };
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
