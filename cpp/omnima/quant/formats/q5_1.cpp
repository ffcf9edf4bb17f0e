// q5_1: as q5_0, but levels 0 to 31 above a least number: 6 bits a number.
#include "omnima/quant/formats/bits.h"
#include "omnima/quant/formats/formats.h"

namespace omnima::quant {
namespace {

constexpr int kNumbers = 32, kHalf = kNumbers / 2;
constexpr int kBytes = 4 + 4 + kHalf;

void read(const std::uint8_t* block, std::int64_t count, float* out) {
  for (; count > 0; --count, block += kBytes, out += kNumbers) {
    const float scale = half_at(block), least = half_at(block + 2);
    const std::uint32_t fifth = load_u32(block + 4);
    for (int i = 0; i < kHalf; ++i) {
      const int byte = block[8 + i];
      const int low = (byte & 15) | static_cast<int>(fifth >> i & 1) << 4;
      const int high = byte >> 4 | static_cast<int>(fifth >> (i + kHalf) & 1) << 4;
      out[i] = scale * static_cast<float>(low) + least;
      out[i + kHalf] = scale * static_cast<float>(high) + least;
    }
  }
}

}  // namespace

const Format kQ5_1{"q5_1", 7, kNumbers, kBytes, read, nullptr};

}  // namespace omnima::quant
