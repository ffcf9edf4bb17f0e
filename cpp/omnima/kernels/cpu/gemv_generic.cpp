// gemv in plain C++: what a CPU without a level of its own runs.
#include "omnima/kernels/cpu/gemv_tile.h"

namespace omnima::kernels {
namespace {

struct Plain {
  static constexpr int kWidth = 8;
  struct Type {
    float lane[kWidth];
  };
  static Type zero() { return {}; }
  static Type load(const float* p) {
    Type v;
    for (int i = 0; i < kWidth; ++i) v.lane[i] = p[i];
    return v;
  }
  static Type load_part(const float* p, int count) {
    Type v{};
    for (int i = 0; i < count; ++i) v.lane[i] = p[i];
    return v;
  }
  static Type multiply_add(const Type& a, const Type& b, Type sum) {
    for (int i = 0; i < kWidth; ++i) {
#ifdef __FP_FAST_FMAF  // asked for, since compilers may fuse in one tile and not in another
      sum.lane[i] = __builtin_fmaf(a.lane[i], b.lane[i], sum.lane[i]);
#else
      sum.lane[i] += a.lane[i] * b.lane[i];
#endif
    }
    return sum;
  }
  static float sum(const Type& v) {
    return ((v.lane[0] + v.lane[4]) + (v.lane[2] + v.lane[6])) +
           ((v.lane[1] + v.lane[5]) + (v.lane[3] + v.lane[7]));
  }
  static void write_sums(const Type (&of)[4], const float* bias, float* out) {
    for (int i = 0; i < 4; ++i) out[i] = sum(of[i]) + bias[i];
  }
};

}  // namespace

void gemv_generic(const Gemv& product, std::int64_t begin, std::int64_t end) {
  gemv_range<Plain>(product, begin, end);
}

}  // namespace omnima::kernels
