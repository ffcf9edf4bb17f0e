// Sums over rows that do not depend on the number of threads: rows in parts, each with a buffer of
// its own.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <algorithm>

namespace omnima::ops {

// Their number follows from the rows alone.
inline int64_t parts_of(int64_t rows) { return std::clamp<int64_t>(rows / 256, 1, 64); }

// Calls f(part, its first row, the row after its last) on all threads.
template <class F>
void in_parts(int64_t rows, F f) {
  const int64_t parts = parts_of(rows), share = (rows + parts - 1) / parts;
  at::parallel_for(0, parts, 1, [&](int64_t first, int64_t last) {
    for (int64_t part = first; part < last; ++part) {
      const int64_t begin = part * share, end = std::min(rows, begin + share);
      if (begin < end) f(part, begin, end);
    }
  });
}

// Adds a [parts, cols] buffer of partial sums, in order, to `grad`; without one, returns the sum.
inline at::Tensor give_gradient(const at::Tensor& partial, const at::Tensor& grad) {
  const at::Tensor sum = partial.sum(0);
  if (!grad.defined()) return sum;
  grad.add_(sum);
  return {};
}

}  // namespace omnima::ops
