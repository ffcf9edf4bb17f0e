// packed_gemv with two registers of 8 outputs; products of bytes are summed in pairs.
#ifdef OMNIMA_X86
#include <immintrin.h>

#include "omnima/kernels/cpu/packed_gemv_tile.h"

namespace omnima::kernels {
namespace {

struct Avx2Tile {
  static constexpr int kRowsOfTwo = 0;
  struct Floats {
    __m256 a, b;
  };
  struct Bytes {
    __m256i a, b;
  };
  template <int kBits, bool kSplit>
  struct Sum;
  static __m256i quad(const std::int8_t* x) {
    std::int32_t four;
    std::memcpy(&four, x, sizeof(four));
    return _mm256_set1_epi32(four);
  }
  static Bytes load(const std::uint8_t* from) {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)),
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + 32))};
  }
  static Bytes low(Bytes v) {
    const __m256i mask = _mm256_set1_epi8(15);
    return {_mm256_and_si256(v.a, mask), _mm256_and_si256(v.b, mask)};
  }
  static Bytes high(Bytes v) { return low({_mm256_srli_epi16(v.a, 4), _mm256_srli_epi16(v.b, 4)}); }
  static Floats zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static Floats halves(const std::uint8_t* from) {
    return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))),
            _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 16)))};
  }
  static __m128i eight(const std::uint8_t* from) {
    return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
  }
  static Floats bytes(const std::uint8_t* from) {
    return floats(_mm256_cvtepu8_epi32(eight(from)), _mm256_cvtepu8_epi32(eight(from + 8)));
  }
  static Floats signed_bytes(const std::uint8_t* from) {
    return floats(_mm256_cvtepi8_epi32(eight(from)), _mm256_cvtepi8_epi32(eight(from + 8)));
  }
  static Floats times(Floats x, float y) {
    const __m256 all = _mm256_set1_ps(y);
    return {_mm256_mul_ps(x.a, all), _mm256_mul_ps(x.b, all)};
  }
  static Floats times(Floats x, Floats y) {
    return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)};
  }
  static Floats add(Floats x, Floats y) {
    return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)};
  }
  // The operations of round_plainly, 8 numbers at once.
  static void round(const float* x, std::int8_t* levels, float& scale, std::int32_t* totals) {
    const __m256i bits = _mm256_set1_epi32(kMagnitude);
    __m256i most = _mm256_setzero_si256();
    for (int i = 0; i < kPieceInputs; i += 8) {
      const __m256i eight = _mm256_castps_si256(_mm256_loadu_ps(x + i));
      most = _mm256_max_epu32(most, _mm256_and_si256(eight, bits));
    }
    __m128i four = _mm_max_epu32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
    four = _mm_max_epu32(four, _mm_unpackhi_epi64(four, four));
    four = _mm_max_epu32(four, _mm_shuffle_epi32(four, 1));
    const float inverse = inverse_of(static_cast<std::uint32_t>(_mm_cvtsi128_si32(four)), scale);
    for (int half = 0; half < 2; ++half, x += kHalfPiece, levels += kHalfPiece) {
      auto* to = reinterpret_cast<__m128i*>(levels);
      if (inverse == 0.0f) {
        _mm_storeu_si128(to, _mm_setzero_si128());
        totals[half] = 0;
        continue;
      }
      const __m256i first = levels_of(x, inverse), second = levels_of(x + 8, inverse);
      const __m256i sixteen =  // packing leaves each half of a register where it was
          _mm256_permute4x64_epi64(_mm256_packs_epi32(first, second), _MM_SHUFFLE(3, 1, 2, 0));
      _mm_storeu_si128(to, _mm_packs_epi16(_mm256_castsi256_si128(sixteen),
                                           _mm256_extracti128_si256(sixteen, 1)));
      const __m256i sums = _mm256_madd_epi16(sixteen, _mm256_set1_epi16(1));
      __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
      sum = _mm_hadd_epi32(sum, sum);
      totals[half] = _mm_cvtsi128_si32(_mm_hadd_epi32(sum, sum));
    }
  }
  static __m256i levels_of(const float* x, float inverse) {
    const __m256 scaled = _mm256_mul_ps(_mm256_loadu_ps(x), _mm256_set1_ps(inverse));
    const __m256 shifted = _mm256_add_ps(scaled, _mm256_set1_ps(kShift));
    return _mm256_sub_epi32(_mm256_castps_si256(shifted), _mm256_set1_epi32(kShifted));
  }
  static void store(float* to, Floats x) {
    _mm256_storeu_ps(to, x.a);
    _mm256_storeu_ps(to + 8, x.b);
  }
  static Floats floats(__m256i a, __m256i b) {
    return {_mm256_cvtepi32_ps(a), _mm256_cvtepi32_ps(b)};
  }
};

// A piece's sums of pairs stay below 8 * 2 * 15 * 127 = 30480: 16 bits hold them.
template <bool kSplit>
struct Avx2Tile::Sum<4, kSplit> {
  __m256i a, b;
  std::int32_t offset;
  void begin(std::int32_t from) {
    a = b = _mm256_setzero_si256();
    offset = from;
  }
  void add(Bytes even, __m256i first, Bytes odd, __m256i second) {
    a = _mm256_add_epi16(a, _mm256_maddubs_epi16(even.a, first));
    b = _mm256_add_epi16(b, _mm256_maddubs_epi16(even.b, first));
    a = _mm256_add_epi16(a, _mm256_maddubs_epi16(odd.a, second));
    b = _mm256_add_epi16(b, _mm256_maddubs_epi16(odd.b, second));
  }
  Floats end() const {
    const __m256i one = _mm256_set1_epi16(1), from = _mm256_set1_epi32(offset);
    return floats(_mm256_add_epi32(_mm256_madd_epi16(a, one), from),
                  _mm256_add_epi32(_mm256_madd_epi16(b, one), from));
  }
};

// Signs move from the weights to the activations: 2 * 128 * 127 = 32512 is the largest pair.
template <bool kSplit>
struct Avx2Tile::Sum<8, kSplit> {
  __m256i a, b;
  void begin(std::int32_t) { a = b = _mm256_setzero_si256(); }
  void add(Bytes even, __m256i first, Bytes odd, __m256i second) {
    a = _mm256_add_epi32(a, product(even.a, first));
    b = _mm256_add_epi32(b, product(even.b, first));
    a = _mm256_add_epi32(a, product(odd.a, second));
    b = _mm256_add_epi32(b, product(odd.b, second));
  }
  static __m256i product(__m256i levels, __m256i x) {
    const __m256i weights = _mm256_xor_si256(levels, _mm256_set1_epi8(-128));
    const __m256i pairs =
        _mm256_maddubs_epi16(_mm256_abs_epi8(weights), _mm256_sign_epi8(x, weights));
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
  }
  Floats end() const { return floats(a, b); }
};

}  // namespace

PackedKernels packed_kernels_avx2() { return packed_kernels<Avx2Tile>(); }

}  // namespace omnima::kernels
#endif
