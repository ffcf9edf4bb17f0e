#include "omnima/train/loss_scale.h"

#include <ATen/ops/zeros.h>

#include <limits>

namespace omnima::train {

LossScale::LossScale(double first, std::int64_t growth_interval)
    : growth_interval_(growth_interval), state_(at::zeros({3}, at::kDouble)) {
  at(0) = first;
}

void LossScale::take_in(bool finite) {
  double &factor = at(0), &since = at(1);
  if (!finite) {
    factor /= 2;
    since = 0;
    ++at(2);
    return;
  }
  if (++since < static_cast<double>(growth_interval_)) return;
  since = 0;
  if (2 * factor <= std::numeric_limits<float>::max()) factor *= 2;
}

}  // namespace omnima::train
