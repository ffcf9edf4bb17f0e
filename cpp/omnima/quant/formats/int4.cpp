// int4_g<N>: N levels of 4 bits, -8 to 7, scaled by one half: 4 + 16 / N bits a number.
// int4z_g<N>: levels 0 to 15 above a least number, which is a half, too: 4 + 32 / N bits.
// With N = 32 the blocks are q4_0's and q4_1's.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "omnima/core/error.h"
#include "omnima/quant/formats/bits.h"
#include "omnima/quant/formats/formats.h"
#include "omnima/quant/formats/nibbles.h"
#include "omnima/quant/grid.h"

namespace omnima::quant {
namespace {

constexpr int kMost = 15, kZero = 8;

struct Layout {
  std::int64_t group;
  bool has_least;

  std::int64_t head() const { return has_least ? 4 : 2; }  // bytes before the levels
  std::int64_t bytes() const { return head() + group / 2; }

  void read(const std::uint8_t* block, std::int64_t count, float* out) const {
    for (; count > 0; --count, block += bytes()) {
      const float scale = half_at(block);
      const float least = has_least ? half_at(block + 2) : 0.0f;
      const int zero = has_least ? 0 : kZero;
      for (std::int64_t at = 0; at < group; at += kPieceOfNibbles, out += kPieceOfNibbles) {
        const HalfBytes levels(block + head() + at / 2);
        for (int i = 0; i < kPieceOfNibbles; ++i) {
          out[i] = scale * static_cast<float>(levels.at[i] - zero) + least;
        }
      }
    }
  }

  void pack(float scale, float least, const std::uint8_t* levels, std::uint8_t* block) const {
    store_u16(block, half_of_float(scale));
    if (has_least) store_u16(block + 2, half_of_float(least));
    pack_nibbles(levels, group, block + head());
  }

  // From the least to the greatest number, or so that the number of the largest magnitude is -8.
  void write(const Grid& grid, const float* numbers, std::int64_t count,
             std::uint8_t* block) const {
    std::vector<std::uint8_t> levels(static_cast<std::size_t>(group));
    for (; count > 0; --count, block += bytes(), numbers += group) {
      if (!all_finite(numbers, group)) {
        store_damaged(block, static_cast<std::size_t>(bytes()));
        continue;
      }
      const auto [low, high] = std::minmax_element(numbers, numbers + group);
      float least = has_least ? *low : 0.0f;
      float scale = has_least ? (*high - *low) / kMost
                              : (-*low > *high ? *low : *high) / -static_cast<float>(kZero);
      grid.settle(&scale, &least, 1);
      grid.nearest(numbers, group, scale, least, levels.data());
      pack(scale, least, levels.data(), block);
    }
  }
};

}  // namespace

Format make_int4(const std::string& name, std::int64_t group, bool has_least) {
  core::require<core::ConfigError>(group >= kPieceOfNibbles && group % kPieceOfNibbles == 0,
                                   "The format ", name, " has groups of ", group,
                                   " numbers; they must be a multiple of ", kPieceOfNibbles, ".");
  const Layout layout{group, has_least};
  auto grid = std::make_shared<Grid>();
  grid->group = group;
  grid->has_least = has_least;
  grid->values.resize(kMost + 1);
  std::iota(grid->values.begin(), grid->values.end(), has_least ? 0.0f : -float{kZero});
  grid->settle = [has_least](float* scales, float* least, std::int64_t groups) {
    for (std::int64_t g = 0; g < groups; ++g) {
      scales[g] = float_of_half(half_of_float(scales[g]));
      if (has_least) least[g] = float_of_half(half_of_float(least[g]));
    }
  };
  grid->pack = [layout](const float* scales, const float* least, const std::uint8_t* levels,
                        std::uint8_t* block) {
    layout.pack(scales[0], layout.has_least ? least[0] : 0.0f, levels, block);
  };
  using kernels::BlockLayout;
  const BlockLayout of_32 = has_least ? BlockLayout::kQ4_1 : BlockLayout::kQ4_0;
  const BlockLayout of_more = has_least ? BlockLayout::kInt4Z : BlockLayout::kInt4;
  const BlockLayout code = group == 32 ? of_32 : of_more;
  Format made{name, std::nullopt, group, layout.bytes(), {}, {}, code, grid, {0}};
  if (has_least) made.halves.push_back(2);
  made.dequantize = [layout](const std::uint8_t* blocks, std::int64_t count, float* out) {
    layout.read(blocks, count, out);
  };
  made.quantize = [layout, grid](const float* numbers, std::int64_t count, std::uint8_t* out) {
    layout.write(*grid, numbers, count, out);
  };
  return made;
}

}  // namespace omnima::quant
