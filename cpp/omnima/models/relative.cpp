#include "omnima/models/relative.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>

namespace omnima::models {

at::Tensor relative_buckets(const DecoderConfig& config, std::int64_t length) {
  const std::int64_t single = config.relative_buckets / 2;
  const auto farther = static_cast<float>(config.relative_buckets - single);
  const double reach =
      std::log(static_cast<double>(config.relative_max_distance) / static_cast<double>(single));
  const at::Tensor buckets = at::empty({length}, at::kLong);
  auto* bucket = buckets.data_ptr<std::int64_t>();
  for (std::int64_t distance = 0; distance < length; ++distance) {
    // In float32, as transformers computes it: at the border of two buckets rounding decides.
    const float ratio = static_cast<float>(distance) / static_cast<float>(single);
    const float step = std::log(ratio) / static_cast<float>(reach) * farther;
    bucket[distance] = distance < single ? distance
                                         : std::min(single + static_cast<std::int64_t>(step),
                                                    config.relative_buckets - 1);
  }
  return buckets;
}

}  // namespace omnima::models
