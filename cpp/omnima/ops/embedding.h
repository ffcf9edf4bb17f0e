// Rows of a table by id.
#pragma once

#include "omnima/ops/weight.h"

namespace omnima::ops {

// ids int64 [...] -> [..., width] in the dtype of weight.compute.
at::Tensor embedding(const at::Tensor& ids, const Weight& weight);

}  // namespace omnima::ops
