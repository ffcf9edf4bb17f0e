// q5_k: as q4_k with a fifth bit of each number apart: 5.5 bits each.
#include "omnima/quant/formats/formats.h"
#include "omnima/quant/formats/super_block.h"

namespace omnima::quant {
namespace {

constexpr int kScale = 0, kLeast = 2, kScales = 4, kFifth = 16, kLevels = 48, kBytes = 176;

void read(const std::uint8_t* block, SuperBlock& out) {
  out.scale = load_u16(block + kScale);
  out.least = negative_half_at(block + kLeast);
  read_six_bits(block + kScales, out);
  for (int group = 0; group < 8; ++group) {
    const std::uint8_t *levels = block + kLevels + group / 2 * 32, *fifth = block + kFifth;
    const int shift = group % 2 * 4;
    for (int i = 0; i < 32; ++i) {
      const int level = (levels[i] >> shift & 15) | (fifth[i] >> group & 1) << 4;
      out.levels[group * 32 + i] = static_cast<std::int8_t>(level);
    }
  }
}

}  // namespace

const Format kQ5K =
    make_super<32, true, read>("q5_k", 13, kBytes, kernels::BlockLayout::kQ5K, {kScale, kLeast});

}  // namespace omnima::quant
