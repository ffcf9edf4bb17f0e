// Makes chosen levels better, one number at a time.
#pragma once

#include "omnima/quant/methods/levels.h"

namespace omnima::quant {

// Coordinate descent of the mean of |(W - Q) x|^2 (QuantEase: Behdin et al. 2023): in each round
// the scales and least numbers of the groups, then every level, take the best value while all
// others stay. No step makes it worse, but for the rounding of scales.
void refine(Levels& levels, const at::Tensor& weight, const at::Tensor& moments, int rounds);

}  // namespace omnima::quant
