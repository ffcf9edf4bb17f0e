// Rows of tokens with virtual tokens in front of every document.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "omnima/nn/pass.h"

namespace omnima::models {

struct VirtualLayout {
  at::Tensor ids, labels, segments;  // [batch, time], longer; 0 and -100 where nothing is read
  nn::VirtualPlaces places;
};

// Puts `count` virtual tokens in front of every document that has a label, rows of different length
// then end in a document without one. labels and segments may be undefined. longest: a document
// with its virtual tokens has no more; a DataError else.
VirtualLayout with_virtual_tokens(const at::Tensor& ids, const at::Tensor& labels,
                                  const at::Tensor& segments, std::int64_t count,
                                  std::int64_t longest);

}  // namespace omnima::models
