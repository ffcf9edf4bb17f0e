// q4_1: as q4_0, but levels 0 to 15 above a least number, which is a half, too: 5 bits a number.
#include "omnima/quant/formats/bits.h"
#include "omnima/quant/formats/formats.h"

namespace omnima::quant {
namespace {

constexpr int kNumbers = 32, kHalf = kNumbers / 2;
constexpr int kBytes = 4 + kHalf;

void read(const std::uint8_t* block, std::int64_t count, float* out) {
  for (; count > 0; --count, block += kBytes, out += kNumbers) {
    const float scale = half_at(block), least = half_at(block + 2);
    for (int i = 0; i < kHalf; ++i) {
      const int byte = block[4 + i];
      out[i] = scale * static_cast<float>(byte & 15) + least;
      out[i + kHalf] = scale * static_cast<float>(byte >> 4) + least;
    }
  }
}

}  // namespace

const Format kQ4_1{"q4_1", 3, kNumbers, kBytes, read, nullptr};

}  // namespace omnima::quant
