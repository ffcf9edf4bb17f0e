#include "omnima/quant/methods/levels.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "omnima/core/error.h"

namespace omnima::quant {
namespace {

// Shares of the range that are tried: the third is the whole range.
constexpr float kWidest = 1.06f, kStep = 0.03f, kQuickStep = 0.06f;
constexpr int kCandidates = 16, kQuickCandidates = 6;
constexpr int kLanes = 8;  // partial sums, so that loops become vector code

// One group's numbers, how much each counts, and room for the values of its levels.
struct Group {
  const Grid& grid;
  const float* numbers;
  const float* importance;
  std::vector<float>& room;
  std::vector<std::uint8_t>& levels;
  float best = std::numeric_limits<float>::infinity();
  float scale = 0, least = 0;

  std::int64_t count() const { return grid.group; }

  void round(float s, float l) {
    grid.nearest(numbers, count(), s, l, levels.data());
    if (grid.uniform()) {
      const float first = grid.values.front();
      for (std::int64_t i = 0; i < count(); ++i) room[i] = static_cast<float>(levels[i]) + first;
    } else {
      for (std::int64_t i = 0; i < count(); ++i) room[i] = grid.values[levels[i]];
    }
  }

  // The sum of f(i) over the group.
  template <class F>
  float sum(F f) const {
    float lanes[kLanes]{};
    std::int64_t i = 0;
    for (; i + kLanes <= count(); i += kLanes) {
      for (int k = 0; k < kLanes; ++k) lanes[k] += f(i + k);
    }
    for (; i < count(); ++i) lanes[0] += f(i);
    return std::accumulate(lanes, lanes + kLanes, 0.0f);
  }

  // Rounds, and keeps a scale that is better than the best so far.
  void consider(float s, float l) {
    if (!std::isfinite(s) || !std::isfinite(l)) return;
    round(s, l);
    const float error = sum([&](std::int64_t i) {
      const float apart = numbers[i] - (s * room[i] + l);
      return importance[i] * apart * apart;
    });
    if (error < best) {
      best = error;
      scale = s;
      least = l;
    }
  }

  // The weighted least squares of the numbers over the values of their levels.
  std::pair<float, float> fitted() const {
    const auto* h = importance;
    const float xx = sum([&](auto i) { return h[i] * room[i] * room[i]; });
    const float xy = sum([&](auto i) { return h[i] * room[i] * numbers[i]; });
    if (!grid.has_least) return {xy / xx, 0.0f};
    const float w = sum([&](auto i) { return h[i]; });
    const float x = sum([&](auto i) { return h[i] * room[i]; }) / w;
    const float y = sum([&](auto i) { return h[i] * numbers[i]; }) / w;
    const float slope = (xy - w * x * y) / (xx - w * x * x);
    return {slope, y - slope * x};
  }

  void search(Search how) {
    const auto [low, high] = std::minmax_element(numbers, numbers + count());
    if (*low == *high && grid.has_least) {  // one number: no levels are needed
      consider(0, *low);
      return;
    }
    const float first = grid.values.front(), last = grid.values.back();
    const bool quick = how == Search::kQuick;
    for (int i = 0; i < (quick ? kQuickCandidates : kCandidates); ++i) {
      const float share = kWidest - (quick ? kQuickStep : kStep) * static_cast<float>(i);
      if (grid.has_least) {
        const float middle = 0.5f * (*low + *high), reach = share * 0.5f * (*high - *low);
        consider(2 * reach / (last - first), middle - reach);
      } else {
        const float most = -*low > *high ? *low : *high;
        // The end of the levels that reaches farther is where the largest number is.
        const float one_way = share * most / first;
        consider(first == -last ? std::fabs(one_way) : one_way, 0);
      }
      if (quick) continue;
      const auto [slope, from] = fitted();
      consider(slope, from);
    }
    if (!std::isfinite(best)) consider(0, 0);
  }
};

}  // namespace

void over_rows(std::int64_t rows, const std::function<void(std::int64_t, std::int64_t)>& f) {
  at::parallel_for(0, rows, 1, f);
}

Levels::Levels(const Format& of, std::int64_t rows, std::int64_t inputs) : format(&of) {
  core::require<core::ConfigError>(of.grid != nullptr, "No method chooses levels of ", of.name,
                                   ": Omnima reads it, or writes it by its own rule.");
  core::require<core::ConfigError>(inputs % of.numbers == 0, "A matrix with ", inputs,
                                   " inputs does not lie in blocks of ", of.name, ", which hold ",
                                   of.numbers, ".");
  const std::int64_t groups = inputs / of.grid->group;
  scales = at::zeros({rows, groups}, at::kFloat);
  least = at::zeros({rows, groups}, at::kFloat);
  levels = at::empty({rows, inputs}, at::kByte);
}

float Levels::number(std::int64_t row, std::int64_t column) const {
  const std::int64_t group = row * groups() + column / grid().group;
  const auto level = levels.const_data_ptr<std::uint8_t>()[row * inputs() + column];
  return scales.const_data_ptr<float>()[group] * grid().values[level] +
         least.const_data_ptr<float>()[group];
}

at::Tensor Levels::numbers() const {
  const at::Tensor out = at::empty({rows(), inputs()}, at::kFloat);
  float* to = out.data_ptr<float>();
  over_rows(rows(), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      for (std::int64_t i = 0; i < inputs(); ++i) to[row * inputs() + i] = number(row, i);
    }
  });
  return out;
}

at::Tensor Levels::blocks() const {
  const std::int64_t row_bytes = format->row_bytes(inputs());
  const std::int64_t in_block = format->numbers / grid().group;  // groups
  const at::Tensor out = at::empty({rows(), row_bytes}, at::kByte);
  auto* to = out.data_ptr<std::uint8_t>();
  const auto* from = levels.const_data_ptr<std::uint8_t>();
  over_rows(rows(), [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t blocks = inputs() / format->numbers;
    for (std::int64_t i = begin * blocks; i < end * blocks; ++i) {
      grid().pack(scales.const_data_ptr<float>() + i * in_block,
                  least.const_data_ptr<float>() + i * in_block, from + i * format->numbers,
                  to + i * format->bytes);
    }
  });
  return out;
}

Levels nearest_levels(const Format& format, const at::Tensor& weight, const at::Tensor& importance,
                      Search how) {
  Levels made(format, weight.size(0), weight.size(1));
  const Grid& grid = made.grid();
  const std::int64_t inputs = made.inputs(), groups = made.groups();
  const std::int64_t in_block = format.numbers / grid.group;
  const std::vector<float> alike(static_cast<std::size_t>(inputs), 1.0f);
  const float* weights = importance.defined() ? importance.const_data_ptr<float>() : alike.data();
  const float* from = weight.const_data_ptr<float>();
  float *scales = made.scales.data_ptr<float>(), *least = made.least.data_ptr<float>();
  auto* levels = made.levels.data_ptr<std::uint8_t>();
  over_rows(made.rows(), [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> room(static_cast<std::size_t>(grid.group));
    std::vector<std::uint8_t> near(static_cast<std::size_t>(grid.group));
    for (std::int64_t row = begin; row < end; ++row) {
      const auto at = [&](std::int64_t group) { return row * inputs + group * grid.group; };
      for (std::int64_t g = 0; g < groups; ++g) {
        Group group{grid, from + at(g), weights + g * grid.group, room, near};
        group.search(how);
        scales[row * groups + g] = group.scale;
        least[row * groups + g] = group.least;
      }
      for (std::int64_t g = 0; g < groups; g += in_block) {
        grid.settle(scales + row * groups + g, least + row * groups + g, in_block);
      }
      for (std::int64_t g = 0; g < groups; ++g) {
        grid.nearest(from + at(g), grid.group, scales[row * groups + g], least[row * groups + g],
                     levels + at(g));
      }
    }
  });
  return made;
}

}  // namespace omnima::quant
