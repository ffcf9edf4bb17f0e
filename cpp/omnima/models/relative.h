// Relative positions as T5 has them (Raffel et al. 2020): a learned number for every head and
// bucket of distances is added to the scores, the same in all layers.
#pragma once

#include <ATen/core/Tensor.h>

#include "omnima/models/decoder_config.h"

namespace omnima::models {

// The bucket of every distance from 0 to length - 1, int64. The nearer half of the buckets hold one
// distance each; the others grow by a factor up to relative_max_distance.
at::Tensor relative_buckets(const DecoderConfig& config, std::int64_t length);

}  // namespace omnima::models
