// q2_k: 2 bits a number, groups of 16 with a scale and a least number of 4 bits: 2.625 bits each.
#include "omnima/quant/formats/formats.h"
#include "omnima/quant/formats/super_block.h"

namespace omnima::quant {
namespace {

constexpr int kScales = 0, kLevels = 16, kScale = 80, kLeast = 82, kBytes = 84;

void read(const std::uint8_t* block, SuperBlock& out) {
  out.scale = load_u16(block + kScale);
  out.least = negative_half_at(block + kLeast);
  for (int group = 0; group < 16; ++group) {
    const int both = block[kScales + group];
    out.scales[group] = static_cast<std::int8_t>(both & 15);
    out.leasts[group] = static_cast<std::uint8_t>(both >> 4);
    // Four groups of 32 share bytes, two bits each.
    const std::uint8_t* levels = block + kLevels + group / 8 * 32 + group % 2 * 16;
    const int shift = group % 8 / 2 * 2;
    for (int i = 0; i < 16; ++i) {
      out.levels[group * 16 + i] = static_cast<std::int8_t>(levels[i] >> shift & 3);
    }
  }
}

}  // namespace

const Format kQ2K =
    make_super<16, true, read>("q2_k", 10, kBytes, kernels::BlockLayout::kQ2K, {kScale, kLeast});

}  // namespace omnima::quant
