// What a method chooses for a matrix: scales, least numbers and levels, before a format packs them.
#pragma once

#include <ATen/core/Tensor.h>

#include "omnima/quant/format.h"
#include "omnima/quant/grid.h"

namespace omnima::quant {

struct Levels {
  const Format* format;  // with a grid
  at::Tensor scales;     // float32 [rows, groups], settled
  at::Tensor least;      // the same; zeros where the grid has none
  at::Tensor levels;     // uint8 [rows, inputs]

  Levels(const Format& format, std::int64_t rows, std::int64_t inputs);
  std::int64_t rows() const { return levels.size(0); }
  std::int64_t inputs() const { return levels.size(1); }
  std::int64_t groups() const { return scales.size(1); }
  const Grid& grid() const { return *format->grid; }
  float number(std::int64_t row, std::int64_t column) const;
  at::Tensor numbers() const;  // float32 [rows, inputs]
  at::Tensor blocks() const;   // uint8 [rows, bytes of a row]
};

// Scales and least numbers of every group, by a search of where to clip it: the least squared error
// of its numbers, each weighted by `importance` [inputs] (undefined: all alike). Levels are the
// nearest ones. A quick search tries a few shares of the range and fits no scale to its levels.
enum class Search { kThorough, kQuick };
Levels nearest_levels(const Format& format, const at::Tensor& weight, const at::Tensor& importance,
                      Search how = Search::kThorough);

// Runs f(begin, end) over the rows on all threads.
void over_rows(std::int64_t rows, const std::function<void(std::int64_t, std::int64_t)>& f);

}  // namespace omnima::quant
