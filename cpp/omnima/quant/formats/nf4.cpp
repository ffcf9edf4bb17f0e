// nf4_g<N>x<M>: M groups of N numbers of 4 bits, the values of kernels/cpu/normal_floats.h. A
// group's scale is a byte of 1/255ths of a half that the block begins with (their double
// quantization, with a whole row for a block of scales): 4 + 8 / N + 16 / (N M) bits a number.
#include <algorithm>
#include <cmath>

#include "omnima/core/error.h"
#include "omnima/kernels/cpu/normal_floats.h"
#include "omnima/quant/formats/bits.h"
#include "omnima/quant/formats/formats.h"
#include "omnima/quant/formats/nibbles.h"
#include "omnima/quant/grid.h"

namespace omnima::quant {
namespace {

using kernels::kNormalFloats;

constexpr float kSteps = 255;

struct Layout {
  std::int64_t group, groups;

  std::int64_t head() const { return 2 + groups; }  // bytes before the levels
  std::int64_t bytes() const { return head() + group * groups / 2; }
  std::int64_t numbers() const { return group * groups; }

  void read(const std::uint8_t* block, std::int64_t count, float* out) const {
    for (; count > 0; --count, block += bytes()) {
      const float unit = half_at(block);
      for (std::int64_t g = 0; g < groups; ++g) {
        const float scale = unit * static_cast<float>(block[2 + g]);
        const std::uint8_t* bytes = block + head() + g * group / 2;
        for (std::int64_t at = 0; at < group; at += kPieceOfNibbles, out += kPieceOfNibbles) {
          const HalfBytes levels(bytes + at / 2);
          for (int i = 0; i < kPieceOfNibbles; ++i) out[i] = scale * kNormalFloats[levels.at[i]];
        }
      }
    }
  }

  // What the greatest of the scales is 255 of, as a half.
  static float unit_of(const float* scales, std::int64_t groups) {
    return float_of_half(half_of_float(*std::max_element(scales, scales + groups) / kSteps));
  }

  static float steps_of(float scale, float unit) {
    const float steps = std::round(scale * Scale(unit).inverse);
    return steps > 0 ? std::min(steps, kSteps) : 0.0f;  // 0 also for NaN, of infinite scales
  }

  // The greatest of them becomes 255 of the unit, however the half was rounded: then settled scales
  // give the same unit again.
  static void settle(float* scales, std::int64_t groups) {
    const float unit = unit_of(scales, groups);
    float* greatest = std::max_element(scales, scales + groups);
    for (float* each = scales; each < scales + groups; ++each) {
      *each = unit * (each == greatest ? kSteps : steps_of(*each, unit));
    }
  }

  void pack(const float* scales, const std::uint8_t* levels, std::uint8_t* block) const {
    const float unit = unit_of(scales, groups);
    store_u16(block, half_of_float(unit));
    for (std::int64_t g = 0; g < groups; ++g) {
      block[2 + g] = static_cast<std::uint8_t>(steps_of(scales[g], unit));
    }
    pack_nibbles(levels, numbers(), block + head());
  }

  void write(const Grid& grid, const float* from, std::int64_t count, std::uint8_t* block) const {
    std::vector<float> scales(static_cast<std::size_t>(groups));
    std::vector<std::uint8_t> levels(static_cast<std::size_t>(numbers()));
    for (; count > 0; --count, block += bytes(), from += numbers()) {
      if (!all_finite(from, numbers())) {
        store_damaged(block, static_cast<std::size_t>(bytes()));
        std::fill_n(block + 2, groups, std::uint8_t{1});
        continue;
      }
      for (std::int64_t g = 0; g < groups; ++g) {
        float most = 0;
        for (std::int64_t i = 0; i < group; ++i) {
          most = std::max(most, std::fabs(from[g * group + i]));
        }
        scales[g] = most;
      }
      settle(scales.data(), groups);
      for (std::int64_t g = 0; g < groups; ++g) {
        grid.nearest(from + g * group, group, scales[g], 0, levels.data() + g * group);
      }
      pack(scales.data(), levels.data(), block);
    }
  }
};

}  // namespace

Format make_nf4(const std::string& name, std::int64_t group, std::int64_t groups) {
  core::require<core::ConfigError>(
      group >= kPieceOfNibbles && group % kPieceOfNibbles == 0 && groups >= 1, "The format ", name,
      " has ", groups, " groups of ", group, " numbers; it needs one at least, of a multiple of ",
      kPieceOfNibbles, ".");
  const Layout layout{group, groups};
  auto grid = std::make_shared<Grid>();
  grid->group = group;
  grid->has_least = false;
  grid->values.assign(std::begin(kNormalFloats), std::end(kNormalFloats));
  grid->settle = [](float* scales, float*, std::int64_t count) { Layout::settle(scales, count); };
  grid->pack = [layout](const float* scales, const float*, const std::uint8_t* levels,
                        std::uint8_t* block) { layout.pack(scales, levels, block); };
  Format made{name, std::nullopt, layout.numbers(),           layout.bytes(),
              {},   {},           kernels::BlockLayout::kNf4, grid};
  made.dequantize = [layout](const std::uint8_t* blocks, std::int64_t count, float* out) {
    layout.read(blocks, count, out);
  };
  made.quantize = [layout, grid](const float* numbers, std::int64_t count, std::uint8_t* out) {
    layout.write(*grid, numbers, count, out);
  };
  return made;
}

}  // namespace omnima::quant
