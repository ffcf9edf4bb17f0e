// packed_gemv in plain C++: what a CPU without a level of its own runs.
#include "omnima/kernels/cpu/packed_gemv_tile.h"

namespace omnima::kernels {
namespace {

float float_of_half(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000) << 16;
  const std::uint32_t magnitude = half & 0x7fff;
  const float small = static_cast<float>(static_cast<std::int32_t>(magnitude)) * 0x1p-24f;
  const std::uint32_t rebased = (magnitude << 13) + (magnitude >= 0x7c00 ? 224u << 23 : 112u << 23);
  const std::uint32_t bits = magnitude < 0x400 ? std::bit_cast<std::uint32_t>(small) : rebased;
  return std::bit_cast<float>(sign | bits);
}

struct PlainTile {
  static constexpr int kRowsOfTwo = 0;
  struct Floats {
    float at[kPackedOutputs];
  };
  struct Bytes {
    std::uint8_t at[kPackedLine];
  };
  static const std::int8_t* quad(const std::int8_t* x) { return x; }
  template <int kBits, bool kSplit>
  struct Sum {
    std::int32_t at[kPackedOutputs];
    void begin(std::int32_t offset) {
      for (auto& lane : at) lane = offset;
    }
    void add(const Bytes& even, const std::int8_t* x, const Bytes& odd, const std::int8_t* next) {
      for (int lane = 0; lane < kPackedOutputs; ++lane) {
        for (int i = 0; i < 4; ++i) {
          at[lane] += even.at[4 * lane + i] * x[i] + odd.at[4 * lane + i] * next[i];
        }
      }
    }
    Floats end() const {
      Floats out;
      for (int lane = 0; lane < kPackedOutputs; ++lane) {
        out.at[lane] = static_cast<float>(at[lane]);
      }
      return out;
    }
  };
  static Bytes load(const std::uint8_t* from) {
    Bytes out;
    std::memcpy(out.at, from, sizeof(out.at));
    return out;
  }
  static Bytes low(Bytes bytes) {
    for (auto& byte : bytes.at) byte &= 15;
    return bytes;
  }
  static Bytes high(Bytes bytes) {
    for (auto& byte : bytes.at) byte = static_cast<std::uint8_t>(byte >> 4);
    return bytes;
  }
  static Floats zero() { return {}; }
  static Floats halves(const std::uint8_t* from) {
    Floats out;
    for (int lane = 0; lane < kPackedOutputs; ++lane) {
      std::uint16_t half;
      std::memcpy(&half, from + 2 * lane, sizeof(half));
      out.at[lane] = float_of_half(half);
    }
    return out;
  }
  static Floats bytes(const std::uint8_t* from) {
    Floats out;
    for (int lane = 0; lane < kPackedOutputs; ++lane) out.at[lane] = from[lane];
    return out;
  }
  static Floats signed_bytes(const std::uint8_t* from) {
    Floats out;
    for (int lane = 0; lane < kPackedOutputs; ++lane) {
      out.at[lane] = static_cast<std::int8_t>(from[lane]);
    }
    return out;
  }
  static Floats times(Floats a, float b) {
    for (auto& lane : a.at) lane *= b;
    return a;
  }
  static Floats times(Floats a, const Floats& b) {
    for (int lane = 0; lane < kPackedOutputs; ++lane) a.at[lane] *= b.at[lane];
    return a;
  }
  static Floats add(Floats a, const Floats& b) {
    for (int lane = 0; lane < kPackedOutputs; ++lane) a.at[lane] += b.at[lane];
    return a;
  }
  static void round(const float* x, std::int8_t* levels, float& scale, std::int32_t* totals) {
    round_plainly(x, levels, scale, totals);
  }
  static void store(float* to, const Floats& a) { std::memcpy(to, a.at, sizeof(a.at)); }
};

}  // namespace

PackedKernels packed_kernels_generic() { return packed_kernels<PlainTile>(); }

}  // namespace omnima::kernels
