// q6_k: 6 bits a number, -32 to 31, two of them apart; groups of 16 with a scale of 8 bits: 6.5625
// bits each.
#include "omnima/quant/formats/formats.h"
#include "omnima/quant/formats/super_block.h"

namespace omnima::quant {
namespace {

constexpr int kLow = 0, kHigh = 128, kScales = 192, kScale = 208, kBytes = 210;

void read(const std::uint8_t* block, SuperBlock& out) {
  out.scale = load_u16(block + kScale);
  for (int group = 0; group < 16; ++group) {
    out.scales[group] = static_cast<std::int8_t>(block[kScales + group]);
    // A byte of low bits holds numbers 64 apart, one of high bits four that are 32 apart.
    const int half = group / 8, within = group % 8;
    const std::uint8_t* low = block + kLow + half * 64 + within % 4 * 16;
    const std::uint8_t* high = block + kHigh + half * 32 + within % 2 * 16;
    const int low_shift = within / 4 * 4, high_shift = within / 2 * 2;
    for (int i = 0; i < 16; ++i) {
      const int level = (low[i] >> low_shift & 15) | (high[i] >> high_shift & 3) << 4;
      out.levels[group * 16 + i] = static_cast<std::int8_t>(level - 32);
    }
  }
}

}  // namespace

const Format kQ6K =
    make_super<16, false, read>("q6_k", 14, kBytes, kernels::BlockLayout::kQ6K, {kScale});

}  // namespace omnima::quant
