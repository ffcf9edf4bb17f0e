#include "omnima/quant/methods/refine.h"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "omnima/ops/product.h"

namespace omnima::quant {
namespace {

constexpr std::int64_t kLargestGroup = 128;  // larger ones keep their scales
constexpr std::int64_t kColumns = 64;        // are settled at a time where no scale moves

// Some neighbouring columns of one row: a group, or a part of a larger one.
struct Piece {
  const Grid& grid;
  const float* moments;  // H of these columns: [count] rows, each `stride` after the one before
  std::int64_t count, stride;
  float* slope;  // (w - q) H: half of how fast the error falls as a number grows
  float *scale, *least;
  std::uint8_t* levels;

  float number(std::int64_t i) const { return *scale * grid.values[levels[i]] + *least; }

  void add(std::int64_t i, float change) {
    const float* line = moments + i * stride;
    for (std::int64_t k = 0; k < count; ++k) slope[k] -= change * line[k];
  }

  // Moves all numbers along `direction`, as far as is best; `settled` rounds how far.
  template <class Settled>
  void move(const float* direction, Settled settled) {
    float gain = 0, curve = 0;
    for (std::int64_t i = 0; i < count; ++i) {
      const float* line = moments + i * stride;
      float lanes[4]{};
      std::int64_t k = 0;
      for (; k + 4 <= count; k += 4) {
        for (int lane = 0; lane < 4; ++lane) lanes[lane] += direction[k + lane] * line[k + lane];
      }
      for (; k < count; ++k) lanes[0] += direction[k] * line[k];
      gain += direction[i] * slope[i];
      curve += direction[i] * ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3]));
    }
    if (!(curve > 0)) return;
    const float moved = settled(gain / curve);
    if (moved == 0) return;
    for (std::int64_t i = 0; i < count; ++i) add(i, moved * direction[i]);
  }

  // The best scale, then the best least number, of these levels.
  void fit_scales(float* direction) {
    const auto settled = [&](float& value, float change) {
      const float before = value;
      value += change;
      grid.settle(scale, least, 1);
      return value - before;
    };
    for (std::int64_t i = 0; i < count; ++i) direction[i] = grid.values[levels[i]];
    move(direction, [&](float change) { return settled(*scale, change); });
    if (!grid.has_least) return;
    std::fill_n(direction, count, 1.0f);
    move(direction, [&](float change) { return settled(*least, change); });
  }

  // The best level of each number, in order.
  void choose_levels() {
    for (std::int64_t i = 0; i < count; ++i) {
      const float curve = moments[i * stride + i];
      if (!(curve > 0)) continue;
      const float now = number(i);
      const std::uint8_t level = grid.nearest(now + slope[i] / curve, *scale, *least);
      if (level == levels[i]) continue;
      levels[i] = level;
      add(i, number(i) - now);
    }
  }
};

}  // namespace

void refine(Levels& made, const at::Tensor& weight, const at::Tensor& moments, int rounds) {
  const std::int64_t rows = made.rows(), inputs = made.inputs(), groups = made.groups();
  const Grid& grid = made.grid();
  // Where groups share what scales them, one scale alone cannot move.
  const bool fits = made.format->numbers == grid.group && grid.group <= kLargestGroup;
  const std::int64_t width = fits ? grid.group : std::min(kColumns, grid.group);
  const at::Tensor slopes = ops::product(weight.sub(made.numbers()), moments);
  auto* levels = made.levels.data_ptr<std::uint8_t>();
  float *scales = made.scales.data_ptr<float>(), *least = made.least.data_ptr<float>();
  for (int round = 0; round < rounds; ++round) {
    for (std::int64_t first = 0, count = 0; first < inputs; first += count) {
      const std::int64_t group = first / grid.group;
      count = std::min(width, (group + 1) * grid.group - first);
      const at::Tensor lines = moments.narrow(0, first, count);
      const at::Tensor changes = at::empty({rows, count}, at::kFloat);
      float *change = changes.data_ptr<float>(), *slope = slopes.data_ptr<float>();
      over_rows(rows, [&](std::int64_t begin, std::int64_t end) {
        std::vector<float> direction(static_cast<std::size_t>(count));
        std::vector<float> local(static_cast<std::size_t>(count));
        for (std::int64_t row = begin; row < end; ++row) {
          std::copy_n(slope + row * inputs + first, count, local.data());
          Piece piece{grid,
                      lines.const_data_ptr<float>() + first,
                      count,
                      inputs,
                      local.data(),
                      scales + row * groups + group,
                      least + row * groups + group,
                      levels + row * inputs + first};
          float* moved = change + row * count;
          for (std::int64_t i = 0; i < count; ++i) moved[i] = -piece.number(i);
          if (fits) piece.fit_scales(direction.data());
          piece.choose_levels();
          for (std::int64_t i = 0; i < count; ++i) moved[i] += piece.number(i);
        }
      });
      slopes.sub_(ops::product(changes, lines));
    }
  }
}

}  // namespace omnima::quant
