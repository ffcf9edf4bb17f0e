// A stored matrix laid out anew for products with activations in 8 bits: the same levels and scales
// in another order, in memory of its own.
#pragma once

#include <cstdint>
#include <memory>

#include "omnima/core/buffer.h"
#include "omnima/kernels/cpu/packed_gemv.h"
#include "omnima/quant/matrix.h"

namespace omnima::quant {

// Memory of many matrices, one behind the other: most are smaller than a huge page.
class PackedMemory {
 public:
  // Whole cache lines that stay as long as one of their owners.
  struct Part {
    std::shared_ptr<core::Buffer> owner;
    std::uint8_t* data;
  };
  Part take(std::int64_t bytes);

 private:
  std::shared_ptr<core::Buffer> chunk_;
  std::uint8_t *next_ = nullptr, *end_ = nullptr;
};

struct PackedMatrix {
  kernels::Packed layout;
  std::shared_ptr<core::Buffer> memory;
};

// Null where the format has no such layout: its groups would not be whole pieces of 32 inputs, or
// it has no levels that share a scale.
std::shared_ptr<const PackedMatrix> packed(const Matrix& matrix, PackedMemory& memory);

}  // namespace omnima::quant
