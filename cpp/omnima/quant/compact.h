// A matrix of bfloat16 laid out anew in 12 bits a number, without loss, in memory of its own.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "omnima/core/buffer.h"
#include "omnima/kernels/cpu/compact_gemv.h"
#include "omnima/quant/matrix.h"
#include "omnima/quant/packed.h"

namespace omnima::quant {

struct CompactMatrix {
  kernels::Compact layout;  // refers to what follows
  std::vector<kernels::CompactException> exceptions;
  std::vector<std::uint32_t> tiles;
  std::shared_ptr<core::Buffer> memory;
};

// Runs body(begin, end) for parts of 0..count, on as many threads as it likes. The body throws
// nothing.
using Share = std::function<void(
    std::int64_t count, const std::function<void(std::int64_t begin, std::int64_t end)>& body)>;

// Null where so many numbers are exceptions that plain ones are read sooner. Throws ConfigError
// where the matrix is not of bfloat16.
std::shared_ptr<const CompactMatrix> compacted(const Matrix& matrix, PackedMemory& memory,
                                               const Share& share);

}  // namespace omnima::quant
