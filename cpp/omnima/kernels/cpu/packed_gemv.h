// Products of packed weights with activations in 8 bits. Both are small whole numbers that share
// scales: their products are summed as integers, exactly, and each group's sum is scaled once.
// Every level gives the same results, bit for bit.
#pragma once

#include <cstdint>

#include "omnima/kernels/cpu/cpu_features.h"

namespace omnima::kernels {

// Inputs are taken in pieces: one scale for the activations of each.
inline constexpr std::int64_t kPieceInputs = 32, kHalfPiece = 16;
// Outputs side by side in memory: one a lane of the vectors.
inline constexpr std::int64_t kPackedOutputs = 16;
inline constexpr std::int64_t kPackedLine = 64;

// A matrix whose rows lie 16 side by side, so that one stream of whole cache lines feeds 16 sums.
// A number is scale * (level - zero()) + least. Memory holds the tiles of 16 outputs; of each tile
// the groups; of each group 16 scales and 16 least numbers, which are halves, then its pieces. A
// piece is 8 quads of inputs: in 8 bits a line of 64 bytes each (4 levels of output 0, 4 of output
// 1, …), in 4 bits a line holds one in its low bits and the next in its high bits.
// Outputs beyond the last, and inputs beyond the last of a group, are zeros.
// With `part` a group is of whole pieces and has parts of 16 or 32 inputs: then a piece begins, for
// each of its parts, with 16 signed bytes by which the scales are multiplied, and 16 unsigned
// ones by which the least numbers are.
struct Packed {
  int bits;        // of a level: 4 or 8
  bool has_least;  // else least numbers are not there
  std::int64_t outputs, inputs;
  std::int64_t group;  // inputs that share a scale: whole pieces, or all
  const std::uint8_t* data;
  std::int64_t part = 0;  // inputs that share a byte of a scale; 0: there are none

  int zero() const { return bits == 8 ? 128 : has_least ? 0 : 8; }
  std::int64_t groups() const { return (inputs + group - 1) / group; }
  std::int64_t group_pieces() const { return (group + kPieceInputs - 1) / kPieceInputs; }
  std::int64_t pieces() const { return groups() * group_pieces(); }
  std::int64_t scale_bytes() const { return kPackedOutputs * (has_least ? 4 : 2); }
  std::int64_t part_bytes() const { return part == 0 ? 0 : kPackedOutputs * (has_least ? 2 : 1); }
  std::int64_t level_bytes() const { return kPieceInputs * kPackedOutputs * bits / 8; }
  std::int64_t piece_bytes() const {
    return (part == 0 ? 0 : kPieceInputs / part * part_bytes()) + level_bytes();
  }
  std::int64_t group_bytes() const { return scale_bytes() + group_pieces() * piece_bytes(); }
  std::int64_t tile_bytes() const { return groups() * group_bytes(); }
  std::int64_t bytes() const {
    return (outputs + kPackedOutputs - 1) / kPackedOutputs * tile_bytes();
  }
};

// Rows of activations as levels -127 to 127: a number is scale * level of its piece.
struct ByteRows {
  std::int8_t* levels;   // [rows, pieces, 32]
  float* scales;         // [rows, pieces]; NaN where the piece holds NaN or infinity
  std::int32_t* totals;  // [rows, pieces, 2]: the sums of the levels of each half of a piece
};
// Fills them from x, rows x_stride apart; what is missing of the last piece is zero.
void quantize_rows(const float* x, std::int64_t x_stride, std::int64_t rows, std::int64_t inputs,
                   const ByteRows& out, Level level = active_level());

struct PackedGemv {
  Packed weight;
  const float* bias;  // [outputs] or null
  ByteRows x;
  std::int64_t rows;
  float* y;  // [rows, outputs], rows y_stride apart
  std::int64_t y_stride;
};

// Computes the outputs begin..end of all rows: each the same whatever is computed beside it.
void packed_gemv(const PackedGemv& product, std::int64_t begin, std::int64_t end,
                 Level level = active_level());

// What a level has.
struct PackedKernels {
  void (*gemv)(const PackedGemv&, std::int64_t begin, std::int64_t end);
  void (*quantize)(const float* x, std::int64_t x_stride, std::int64_t rows, std::int64_t inputs,
                   const ByteRows& out);
};

}  // namespace omnima::kernels
