// q8_0: 32 signed bytes, scaled by one half: 8.5 bits a number.
#include <algorithm>
#include <cmath>

#include "omnima/quant/formats/bits.h"
#include "omnima/quant/formats/formats.h"

namespace omnima::quant {
namespace {

constexpr int kNumbers = 32;
constexpr int kBytes = 2 + kNumbers;

void read(const std::uint8_t* block, std::int64_t count, float* out) {
  for (; count > 0; --count, block += kBytes, out += kNumbers) {
    const float scale = half_at(block);
    for (int i = 0; i < kNumbers; ++i) {
      out[i] = static_cast<float>(static_cast<std::int8_t>(block[2 + i])) * scale;
    }
  }
}

void write(const float* numbers, std::int64_t count, std::uint8_t* block) {
  for (; count > 0; --count, block += kBytes, numbers += kNumbers) {
    if (!all_finite(numbers, kNumbers)) {
      store_damaged(block, kBytes);
      continue;
    }
    float most = 0;
    for (int i = 0; i < kNumbers; ++i) most = std::max(most, std::fabs(numbers[i]));
    const Scale scale(most / 127);
    store_u16(block, half_of_float(scale.value));
    for (int i = 0; i < kNumbers; ++i) {
      const auto rounded = static_cast<int>(std::round(numbers[i] * scale.inverse));
      block[2 + i] = static_cast<std::uint8_t>(static_cast<std::int8_t>(rounded));
    }
  }
}

}  // namespace

const Format kQ8_0{"q8_0",  8,  kNumbers, kBytes, read, write, kernels::BlockLayout::kQ8_0,
                   nullptr, {0}};

}  // namespace omnima::quant
