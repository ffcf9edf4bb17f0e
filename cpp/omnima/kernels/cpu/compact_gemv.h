// gemv (gemv.h) with weights of bfloat16 in 12 bits a number, without loss. The upper bytes of a
// matrix, a sign and seven bits of exponent, are nearly all among 16: four bits tell which. The
// lower bytes, the last bit of the exponent and the fraction, stay as they are. The few numbers
// with other upper bytes are listed. Every sum is made in the order of gemv: the results are those
// of the plain numbers, bit for bit.
#pragma once

#include <cstdint>

#include "omnima/kernels/cpu/cpu_features.h"
#include "omnima/kernels/cpu/number_types.h"

namespace omnima::kernels {

inline constexpr std::int64_t kCompactPiece = 64;   // numbers
inline constexpr std::int64_t kCompactOutputs = 4;  // of a tile, which has a list of its exceptions
inline constexpr int kCompactHighs = 16;

struct CompactException {
  std::uint32_t input;
  std::uint16_t output;  // of the tile
  std::uint16_t bits;
};

// A row of weights is pairs of pieces: 64 lower bytes of the first piece, 64 of the second, and 64
// bytes that tell which upper bytes they have: those of the first piece in their low bits, those of
// the second in their high bits. A last piece without a second has 32 such bytes: byte i tells
// those of bytes i and 32 + i. Numbers beyond the last are any. Byte 16 * q + r of a piece is of
// number compact_number(16 * q + r): where unpacking bytes to words, and these to two vectors of
// floats, puts it into its lane. The rows of a tile take turns, pair by pair: one unbroken stream
// feeds four sums. Rows beyond the last have room and no meaning.
struct Compact {
  std::int64_t outputs = 0, inputs = 0;
  std::uint8_t highs[kCompactHighs] = {};
  std::uint8_t* data = nullptr;  // bytes()
  // Of each tile in the order of inputs; those of tile i are tiles[i]..tiles[i + 1].
  const CompactException* exceptions = nullptr;
  const std::uint32_t* tiles = nullptr;

  std::int64_t pieces() const { return (inputs + kCompactPiece - 1) / kCompactPiece; }
  std::int64_t tile_count() const { return (outputs + kCompactOutputs - 1) / kCompactOutputs; }
  std::int64_t tile_bytes() const { return kCompactOutputs * pieces() * kCompactPiece * 3 / 2; }
  std::int64_t bytes() const { return tile_count() * tile_bytes(); }
  // Pair `index` of a row, or the last piece without a second.
  std::uint8_t* pair(std::int64_t output, std::int64_t index) const {
    const std::int64_t size = 2 * index + 1 < pieces() ? 3 * kCompactPiece : 3 * kCompactPiece / 2;
    return data + output / kCompactOutputs * tile_bytes() +
           index * kCompactOutputs * 3 * kCompactPiece + output % kCompactOutputs * size;
  }
};

constexpr int compact_number(int byte) {
  const int quarter = byte / 16, word = byte % 8;
  return 16 * (byte % 16 / 8 * 2 + word % 2) + 4 * quarter + word / 2;
}

// The upper bytes that are most frequent in some rows of a matrix [outputs, inputs]; returns which
// share of these rows' numbers has others.
double choose_highs(const bfloat16* weight, std::int64_t outputs, std::int64_t inputs,
                    std::uint8_t (&highs)[kCompactHighs]);
// Writes the rows of a tile, of weights [outputs, inputs], to `to.data`, and its exceptions, at
// most `room` of them. Returns how many there are; more than room: the tile is of no use.
std::int64_t pack_compact_tile(const bfloat16* weight, const Compact& to, std::int64_t tile,
                               CompactException* exceptions, std::int64_t room,
                               Level level = active_level());
// Writes a row of numbers.
void unpack_compact_row(const Compact& weight, std::int64_t output, bfloat16* out);

struct CompactGemv {
  Compact weight;
  const float* bias;  // [outputs] or null
  std::int64_t inputs;
  const float* x;  // [rows, inputs], rows x_stride apart
  std::int64_t x_stride;
  std::int64_t rows;
  float* y;  // [rows, outputs], rows y_stride apart
  std::int64_t y_stride;
};

// Computes the outputs begin..end of all rows.
void compact_gemv(const CompactGemv& product, std::int64_t begin, std::int64_t end,
                  Level level = active_level());
// Whether a level has vectors to unpack numbers with: without them plain ones are faster.
bool unpacks_in_vectors(Level level = active_level());

// What a level has. gemv: for at most kCompactRows rows; null: none of its own. unpack: the rows
// begin..end, `inputs` numbers apart. encode: the 64 numbers of a piece as lower bytes and places
// among the upper ones, both as they are stored; returns a bit for each byte whose upper byte is
// not there.
struct CompactKernels {
  void (*gemv)(const CompactGemv&, std::int64_t begin, std::int64_t end);
  void (*unpack)(const Compact& weight, std::int64_t begin, std::int64_t end, float* out);
  std::uint64_t (*encode)(const bfloat16* numbers, const std::uint8_t (&highs)[kCompactHighs],
                          std::uint8_t* lows, std::uint8_t* places);
};
inline constexpr std::int64_t kCompactRows = 8;

}  // namespace omnima::kernels
