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
    const HalfBytes levels(block + 4);
    for (int i = 0; i < kNumbers; ++i) {
      out[i] = scale * static_cast<float>(levels.at[i]) + least;
    }
  }
}

}  // namespace

const Format kQ4_1{"q4_1",  3,     kNumbers, kBytes, read, nullptr, kernels::BlockLayout::kQ4_1,
                   nullptr, {0, 2}};

}  // namespace omnima::quant
