// gemv with 16 lanes.
#ifdef OMNIMA_X86
// GCC 12 warns of its own header's deliberately undefined vectors (GCC bug 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include "omnima/kernels/cpu/gemv_tile.h"

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
  static Type multiply_add(Type a, Type b, Type sum) { return _mm512_fmadd_ps(a, b, sum); }
  static float sum(Type v) { return _mm512_reduce_add_ps(v); }
};

}  // namespace

void gemv_avx512(const Gemv& product, std::int64_t begin, std::int64_t end) {
  gemv_range<Avx512>(product, begin, end);
}

}  // namespace omnima::kernels
#endif
