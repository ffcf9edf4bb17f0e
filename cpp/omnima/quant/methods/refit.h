// The best scales for levels that are chosen already.
#pragma once

#include "omnima/quant/methods/levels.h"

namespace omnima::quant {

// Fits all scales and least numbers of each row together: the least |(W - Q) x|^2 over the
// calibration text. weight float32 [rows, inputs]; moments float32 [inputs, inputs]: the mean of
// x x^T. A row that is not nearer afterwards keeps what it has.
void refit_scales(Levels& made, const at::Tensor& weight, const at::Tensor& moments);

}  // namespace omnima::quant
