// The cache's attention in plain C++: what a CPU without a level of its own runs.
#include <bit>

#include "omnima/kernels/cpu/cached_heads_tile.h"

namespace omnima::kernels {
namespace {

struct PlainLanes {
  static constexpr int kWidth = 8;
  struct Type {
    float lane[kWidth];
  };
  struct Ints {
    std::int32_t lane[kWidth];
  };
  static Type zero() { return {}; }
  static Type set(float x) {
    Type v;
    for (auto& lane : v.lane) lane = x;
    return v;
  }
  static Type load(const float* p) {
    Type v;
    std::memcpy(v.lane, p, sizeof(v.lane));
    return v;
  }
  static void store(float* p, const Type& v) { std::memcpy(p, v.lane, sizeof(v.lane)); }
  static Type multiply(Type a, const Type& b) {
    for (int i = 0; i < kWidth; ++i) a.lane[i] *= b.lane[i];
    return a;
  }
  static Type multiply_add(const Type& a, const Type& b, Type sum) {
    for (int i = 0; i < kWidth; ++i) sum.lane[i] += a.lane[i] * b.lane[i];
    return sum;
  }
  static Type brain_floats(const std::uint8_t* p) {
    std::uint16_t bits[kWidth];
    std::memcpy(bits, p, sizeof(bits));
    Type v;
    for (int i = 0; i < kWidth; ++i) v.lane[i] = std::bit_cast<float>(std::uint32_t{bits[i]} << 16);
    return v;
  }
  static Ints signed_bytes(const std::uint8_t* p) {
    Ints v;
    for (int i = 0; i < kWidth; ++i) v.lane[i] = static_cast<std::int8_t>(p[i]);
    return v;
  }
  static Type floats(const Ints& a) {
    Type v;
    for (int i = 0; i < kWidth; ++i) v.lane[i] = static_cast<float>(a.lane[i]);
    return v;
  }
};

}  // namespace

const CachedHeadKernels& cached_head_kernels_generic() {
  static const CachedHeadKernels table = cached_kernels<PlainLanes>();
  return table;
}

}  // namespace omnima::kernels
