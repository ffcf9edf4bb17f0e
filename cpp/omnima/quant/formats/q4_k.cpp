// q4_k: 4 bits a number, groups of 32 with a scale and a least number of 6 bits: 4.5 bits each.
#include "omnima/quant/formats/formats.h"
#include "omnima/quant/formats/super_block.h"

namespace omnima::quant {
namespace {

constexpr int kScale = 0, kLeast = 2, kScales = 4, kLevels = 16, kBytes = 144;

void read(const std::uint8_t* block, SuperBlock& out) {
  out.scale = load_u16(block + kScale);
  out.least = negative_half_at(block + kLeast);
  read_six_bits(block + kScales, out);
  for (int group = 0; group < 8; ++group) {
    const std::uint8_t* levels = block + kLevels + group / 2 * 32;
    const int shift = group % 2 * 4;
    for (int i = 0; i < 32; ++i) {
      out.levels[group * 32 + i] = static_cast<std::int8_t>(levels[i] >> shift & 15);
    }
  }
}

}  // namespace

const Format kQ4K =
    make_super<32, true, read>("q4_k", 12, kBytes, kernels::BlockLayout::kQ4K, {kScale, kLeast});

}  // namespace omnima::quant
