// q4_0: 32 numbers of 4 bits, -8 to 7, scaled by one half: 4.5 bits a number. A byte holds numbers
// i (its low bits) and i + 16.
#include <algorithm>
#include <cmath>

#include "omnima/quant/formats/bits.h"
#include "omnima/quant/formats/formats.h"

namespace omnima::quant {
namespace {

constexpr int kNumbers = 32, kHalf = kNumbers / 2;
constexpr int kBytes = 2 + kHalf;

void read(const std::uint8_t* block, std::int64_t count, float* out) {
  for (; count > 0; --count, block += kBytes, out += kNumbers) {
    const float scale = half_at(block);
    const HalfBytes levels(block + 2);
    for (int i = 0; i < kNumbers; ++i) {
      out[i] = scale * static_cast<float>(levels.at[i] - 8);
    }
  }
}

// The number of the largest magnitude becomes -8: its sign decides that of the scale.
void write(const float* numbers, std::int64_t count, std::uint8_t* block) {
  for (; count > 0; --count, block += kBytes, numbers += kNumbers) {
    if (!all_finite(numbers, kNumbers)) {
      store_damaged(block, kBytes);
      continue;
    }
    float most = numbers[0];
    for (int i = 1; i < kNumbers; ++i) {
      if (std::fabs(numbers[i]) > std::fabs(most)) most = numbers[i];
    }
    const Scale scale(most / -8);
    store_u16(block, half_of_float(scale.value));
    const auto level = [&](float number) {
      return std::clamp(static_cast<int>(number * scale.inverse + 8.5f), 0, 15);
    };
    for (int i = 0; i < kHalf; ++i) {
      block[2 + i] = static_cast<std::uint8_t>(level(numbers[i]) | level(numbers[i + kHalf]) << 4);
    }
  }
}

}  // namespace

const Format kQ4_0{"q4_0",  2,  kNumbers, kBytes, read, write, kernels::BlockLayout::kQ4_0,
                   nullptr, {0}};

}  // namespace omnima::quant
