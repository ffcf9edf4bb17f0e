// q3_k: 3 bits a number, -4 to 3, the third bit apart; groups of 16 with a scale of 6 bits: 3.4375
// bits each.
#include "omnima/quant/formats/formats.h"
#include "omnima/quant/formats/super_block.h"

namespace omnima::quant {
namespace {

constexpr int kThird = 0, kLevels = 32, kScales = 96, kScale = 108, kBytes = 110;

// Low bits: half bytes of eight bytes; high bits: pairs of four bytes.
int scale_of(const std::uint8_t* scales, int group) {
  const int low = group < 8 ? scales[group] & 15 : scales[group - 8] >> 4;
  const int high = scales[8 + group % 4] >> (group / 4 * 2) & 3;
  return (low | high << 4) - 32;
}

void read(const std::uint8_t* block, SuperBlock& out) {
  out.scale = load_u16(block + kScale);
  for (int group = 0; group < 16; ++group) {
    out.scales[group] = static_cast<std::int8_t>(scale_of(block + kScales, group));
    const std::uint8_t* levels = block + kLevels + group / 8 * 32 + group % 2 * 16;
    const std::uint8_t* third = block + kThird + group % 2 * 16;
    const int shift = group % 8 / 2 * 2, bit = group / 2;
    for (int i = 0; i < 16; ++i) {
      const int offset = (third[i] >> bit & 1) != 0 ? 0 : 4;
      out.levels[group * 16 + i] = static_cast<std::int8_t>((levels[i] >> shift & 3) - offset);
    }
  }
}

}  // namespace

const Format kQ3K =
    make_super<16, false, read>("q3_k", 11, kBytes, kernels::BlockLayout::kQ3K, {kScale});

}  // namespace omnima::quant
