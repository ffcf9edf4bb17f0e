// int8_g<N>: N signed bytes, -127 to 127, scaled by one half: 8 + 16 / N bits a number. A group may
// be a whole row of a matrix. With N = 32 the block is q8_0's.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "omnima/core/error.h"
#include "omnima/quant/formats/bits.h"
#include "omnima/quant/formats/formats.h"
#include "omnima/quant/grid.h"

namespace omnima::quant {
namespace {

constexpr int kLevels = 255, kMost = 127;

void read(std::int64_t group, const std::uint8_t* block, std::int64_t count, float* out) {
  for (; count > 0; --count, block += 2 + group, out += group) {
    const float scale = half_at(block);
    for (std::int64_t i = 0; i < group; ++i) {
      out[i] = static_cast<float>(static_cast<std::int8_t>(block[2 + i])) * scale;
    }
  }
}

void write(std::int64_t group, const float* numbers, std::int64_t count, std::uint8_t* block) {
  for (; count > 0; --count, block += 2 + group, numbers += group) {
    if (!all_finite(numbers, group)) {
      store_damaged(block, static_cast<std::size_t>(2 + group));
      continue;
    }
    float most = 0;
    for (std::int64_t i = 0; i < group; ++i) most = std::max(most, std::fabs(numbers[i]));
    const Scale scale(most / kMost);
    store_u16(block, half_of_float(scale.value));
    for (std::int64_t i = 0; i < group; ++i) {
      const auto level = static_cast<int>(std::round(numbers[i] * scale.inverse));
      block[2 + i] = static_cast<std::uint8_t>(static_cast<std::int8_t>(level));
    }
  }
}

}  // namespace

Format make_int8(const std::string& name, std::int64_t group) {
  core::require<core::ConfigError>(group >= 1, "The format ", name, " has no numbers in a group.");
  auto grid = std::make_shared<Grid>();
  grid->group = group;
  grid->has_least = false;
  grid->values.resize(kLevels);
  std::iota(grid->values.begin(), grid->values.end(), -static_cast<float>(kMost));
  grid->settle = [](float* scales, float*, std::int64_t groups) {
    for (std::int64_t g = 0; g < groups; ++g) scales[g] = float_of_half(half_of_float(scales[g]));
  };
  grid->pack = [group](const float* scales, const float*, const std::uint8_t* levels,
                       std::uint8_t* block) {
    store_u16(block, half_of_float(scales[0]));
    for (std::int64_t i = 0; i < group; ++i) {
      block[2 + i] = static_cast<std::uint8_t>(static_cast<std::int8_t>(levels[i] - kMost));
    }
  };
  using kernels::BlockLayout;
  const BlockLayout layout = group == 32 ? BlockLayout::kQ8_0 : BlockLayout::kInt8;
  Format made{name, std::nullopt, group, 2 + group, {}, {}, layout, grid, {0}};
  made.dequantize = [group](const std::uint8_t* blocks, std::int64_t count, float* out) {
    read(group, blocks, count, out);
  };
  made.quantize = [group](const float* numbers, std::int64_t count, std::uint8_t* out) {
    write(group, numbers, count, out);
  };
  return made;
}

}  // namespace omnima::quant
