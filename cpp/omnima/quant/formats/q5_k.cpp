// q5_k: as q4_k with a fifth bit of each number apart: 5.5 bits each.
#include "omnima/quant/formats/formats.h"
#include "omnima/quant/formats/super_block.h"

namespace omnima::quant {
namespace {

constexpr int kScale = 0, kLeast = 2, kScales = 4, kFifth = 16, kLevels = 48, kBytes = 176;

void read(const std::uint8_t* block, std::int64_t count, float* out) {
  for (; count > 0; --count, block += kBytes, out += kSuper) {
    const float scale = half_at(block + kScale), least = half_at(block + kLeast);
    const SixBits six(block + kScales);
    for (int group = 0; group < 8; ++group) {
      const float by = scale * static_cast<float>(six.scale[group]);
      const float below = least * static_cast<float>(six.least[group]);
      const std::uint8_t *levels = block + kLevels + group / 2 * 32, *fifth = block + kFifth;
      const int shift = group % 2 * 4;
      for (int i = 0; i < 32; ++i) {
        const int level = (levels[i] >> shift & 15) | (fifth[i] >> group & 1) << 4;
        out[group * 32 + i] = by * static_cast<float>(level) - below;
      }
    }
  }
}

}  // namespace

const Format kQ5K{
    "q5_k",          13, kSuper, kBytes, read, nullptr, kernels::BlockLayout::kQ5K, nullptr,
    {kScale, kLeast}};

}  // namespace omnima::quant
