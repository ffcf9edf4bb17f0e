// A matrix as the decode step reads it: rows of 16-byte pieces of numbers, and of numbers of a few
// bits the scales beside them. Plain C++: the host fills it in.
#pragma once

#include "omnima/kernels/cuda/types.h"

namespace omnima::kernels::cuda {

enum class Numbers : std::int32_t {
  kFloat32,
  kFloat16,
  kBfloat16,
  kInt8,  // a byte is the level + 128
  kInt4,  // number 8 j + i of a piece is bits 4 i to 4 i + 3 of its 32-bit word j
};

constexpr std::int64_t kPieceBytes = 16;

constexpr std::int64_t numbers_of_piece(Numbers kind) {
  return kind == Numbers::kFloat32 ? 4
         : kind == Numbers::kInt8  ? 16
         : kind == Numbers::kInt4  ? 32
                                   : 8;
}

// y of number n in group g: scale[g] * (n - zero), or scale[g] * n + least[g].
struct DecodeMatrix {
  const void* numbers = nullptr;          // [outputs, row_bytes]
  const std::uint16_t* scales = nullptr;  // halves [outputs, inputs / group]; null: plain numbers
  const std::uint16_t* leasts = nullptr;  // the same, or null
  std::int64_t outputs = 0, inputs = 0;
  std::int64_t group = 1;      // numbers that share a scale: whole pieces, or all of a row
  std::int64_t row_bytes = 0;  // with scales whole pieces, the last one filled up
  Numbers kind = Numbers::kFloat32;

  // Whether rows may be read by pieces, and eight inputs at a time.
  bool whole() const {
    return inputs % 8 == 0 && row_bytes % kPieceBytes == 0 &&
           reinterpret_cast<std::uintptr_t>(numbers) % kPieceBytes == 0;
  }
};

}  // namespace omnima::kernels::cuda
