// gemv with 8 lanes.
#ifdef OMNIMA_X86
#include <immintrin.h>

#include "omnima/kernels/cpu/gemv_tile.h"

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
  static Type multiply_add(Type a, Type b, Type sum) { return _mm256_fmadd_ps(a, b, sum); }
  static float sum(Type v) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
  }
};

}  // namespace

void gemv_avx2(const Gemv& product, std::int64_t begin, std::int64_t end) {
  gemv_range<Avx2>(product, begin, end);
}

}  // namespace omnima::kernels
#endif
