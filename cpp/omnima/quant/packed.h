// A stored matrix laid out anew for products with activations in 8 bits: the same levels and scales
// in another order, in memory of its own.
#pragma once

#include <memory>

#include "omnima/core/buffer.h"
#include "omnima/kernels/cpu/packed_gemv.h"
#include "omnima/quant/matrix.h"

namespace omnima::quant {

class PackedMatrix {
 public:
  const kernels::Packed& layout() const { return layout_; }

 private:
  friend std::shared_ptr<const PackedMatrix> packed(const Matrix& matrix);

  kernels::Packed layout_{};
  core::Buffer memory_;  // in huge pages, where the system has them
};

// Null where the format has no such layout: its groups would not be whole pieces of 32 inputs, or
// it has no levels that share a scale.
std::shared_ptr<const PackedMatrix> packed(const Matrix& matrix);

}  // namespace omnima::quant
