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
    HalfBytes levels(block + 8);
    levels.add_fifth(block + 4);
    for (int i = 0; i < kNumbers; ++i) out[i] = scale * static_cast<float>(levels.at[i]) + least;
  }
}

}  // namespace

const Format kQ5_1{"q5_1",  7,     kNumbers, kBytes, read, nullptr, kernels::BlockLayout::kQ5_1,
                   nullptr, {0, 2}};

}  // namespace omnima::quant
