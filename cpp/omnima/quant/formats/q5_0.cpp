// q5_0: as q4_0 with a fifth bit of each number apart, -16 to 15: 5.5 bits a number.
#include "omnima/quant/formats/bits.h"
#include "omnima/quant/formats/formats.h"

namespace omnima::quant {
namespace {

constexpr int kNumbers = 32, kHalf = kNumbers / 2;
constexpr int kBytes = 2 + 4 + kHalf;

void read(const std::uint8_t* block, std::int64_t count, float* out) {
  for (; count > 0; --count, block += kBytes, out += kNumbers) {
    const float scale = half_at(block);
    HalfBytes levels(block + 6);
    levels.add_fifth(block + 2);
    for (int i = 0; i < kNumbers; ++i) out[i] = scale * static_cast<float>(levels.at[i] - 16);
  }
}

}  // namespace

const Format kQ5_0{"q5_0",  6,  kNumbers, kBytes, read, nullptr, kernels::BlockLayout::kQ5_0,
                   nullptr, {0}};

}  // namespace omnima::quant
