// Dropout whose mask is a pure function of a seed, so that a resumed run draws the same masks.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace omnima::ops {

// Zeroes each element with probability p and divides the others by 1 - p. On the CPU the mask is
// the same on any number of threads and at any instruction-set level.
at::Tensor dropout(const at::Tensor& x, double p, std::uint64_t seed);

}  // namespace omnima::ops
