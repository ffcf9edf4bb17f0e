// q4_k: 4 bits a number, groups of 32 with a scale and a least number of 6 bits: 4.5 bits each.
#include "omnima/quant/formats/formats.h"
#include "omnima/quant/formats/super_block.h"

namespace omnima::quant {
namespace {

constexpr int kScale = 0, kLeast = 2, kScales = 4, kLevels = 16, kBytes = 144;

void read(const std::uint8_t* block, std::int64_t count, float* out) {
  for (; count > 0; --count, block += kBytes, out += kSuper) {
    const float scale = half_at(block + kScale), least = half_at(block + kLeast);
    const SixBits six(block + kScales);
    for (int group = 0; group < 8; ++group) {
      const float by = scale * static_cast<float>(six.scale[group]);
      const float below = least * static_cast<float>(six.least[group]);
      const std::uint8_t* levels = block + kLevels + group / 2 * 32;
      const int shift = group % 2 * 4;
      for (int i = 0; i < 32; ++i) {
        out[group * 32 + i] = by * static_cast<float>(levels[i] >> shift & 15) - below;
      }
    }
  }
}

}  // namespace

const Format kQ4K{
    "q4_k",          12, kSuper, kBytes, read, nullptr, kernels::BlockLayout::kQ4K, nullptr,
    {kScale, kLeast}};

}  // namespace omnima::quant
