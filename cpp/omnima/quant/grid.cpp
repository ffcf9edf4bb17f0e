#include "omnima/quant/grid.h"

#include <algorithm>

#include "omnima/quant/formats/bits.h"

namespace omnima::quant {
namespace {

// To the nearest whole number, ties to even: exact below 2^22, and vector code on every machine.
inline float rounded(float value) {
  constexpr float kShift = 0x1.8p23f;
  return (value + kShift) - kShift;
}

}  // namespace

void Grid::nearest(const float* numbers, std::int64_t count, float scale, float least,
                   std::uint8_t* levels) const {
  const float inverse = Scale(scale).inverse;
  if (uniform()) {
    const float first = values.front(), most = static_cast<float>(values.size() - 1);
    for (std::int64_t i = 0; i < count; ++i) {
      const float level = rounded((numbers[i] - least) * inverse - first);
      levels[i] = static_cast<std::uint8_t>(std::min(most, std::max(0.0f, level)));
    }
    return;
  }
  for (std::int64_t i = 0; i < count; ++i) {
    const float number = (numbers[i] - least) * inverse;
    int level = 0;
    for (std::size_t k = 1; k < values.size(); ++k) {
      level += number > 0.5f * (values[k - 1] + values[k]);
    }
    levels[i] = static_cast<std::uint8_t>(level);
  }
}

}  // namespace omnima::quant
