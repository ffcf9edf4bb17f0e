// q2_k: 2 bits a number, groups of 16 with a scale and a least number of 4 bits: 2.625 bits each.
#include "omnima/quant/formats/formats.h"
#include "omnima/quant/formats/super_block.h"

namespace omnima::quant {
namespace {

constexpr int kScales = 0, kLevels = 16, kScale = 80, kLeast = 82, kBytes = 84;

void read(const std::uint8_t* block, std::int64_t count, float* out) {
  for (; count > 0; --count, block += kBytes, out += kSuper) {
    const float scale = half_at(block + kScale), least = half_at(block + kLeast);
    for (int group = 0; group < 16; ++group) {
      const int packed = block[kScales + group];
      const float by = scale * static_cast<float>(packed & 15);
      const float below = least * static_cast<float>(packed >> 4);
      // Four groups of 32 share bytes, two bits each.
      const std::uint8_t* levels = block + kLevels + group / 8 * 32 + group % 2 * 16;
      const int shift = group % 8 / 2 * 2;
      for (int i = 0; i < 16; ++i) {
        out[group * 16 + i] = by * static_cast<float>(levels[i] >> shift & 3) - below;
      }
    }
  }
}

}  // namespace

const Format kQ2K{
    "q2_k",          10, kSuper, kBytes, read, nullptr, kernels::BlockLayout::kQ2K, nullptr,
    {kScale, kLeast}};

}  // namespace omnima::quant
