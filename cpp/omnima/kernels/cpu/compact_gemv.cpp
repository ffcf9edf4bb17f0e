// Chooses the code of a level; many rows go through float32 in the first caches; packs with what
// the level encodes a piece with.
#include "omnima/kernels/cpu/compact_gemv.h"

#include <algorithm>
#include <numeric>

#include "omnima/core/buffer.h"
#include "omnima/kernels/cpu/gemv.h"

namespace omnima::kernels {

CompactKernels compact_kernels_generic();
#ifdef OMNIMA_X86
CompactKernels compact_kernels_avx2();
CompactKernels compact_kernels_avx512();
#endif

namespace {

constexpr std::int64_t kPiece = kCompactPiece;
constexpr std::int64_t kRowsLookedAt = 64;
constexpr std::int64_t kTileBytes = 24 << 10;  // of float32 weights between two passes
// Of few numbers a sum is soon to be added up: there more rows than these take the way of many.
constexpr std::int64_t kFewInputs = 1024, kRowsOfFewInputs = 4;
thread_local core::Buffer tile_buffer;

const CompactKernels& kernels_of(Level level) {
  static const Variants<const CompactKernels*> table = [] {
    static const CompactKernels generic = compact_kernels_generic();
#ifdef OMNIMA_X86
    static const CompactKernels avx2 = compact_kernels_avx2(), avx512 = compact_kernels_avx512();
    return Variants<const CompactKernels*>{
        {Level::kGeneric, &generic}, {Level::kAvx2, &avx2}, {Level::kAvx512, &avx512}};
#else
    return Variants<const CompactKernels*>{{Level::kGeneric, &generic}};
#endif
  }();
  return *table.at(level);
}

// A piece of `count` numbers, filled up with the last.
std::uint64_t encode(const CompactKernels& level, const bfloat16* numbers, std::int64_t count,
                     const Compact& to, std::uint8_t* lows, std::uint8_t* places) {
  bfloat16 filled[kPiece];
  if (count < kPiece) {
    std::copy(numbers, numbers + count, filled);
    std::fill(filled + count, filled + kPiece, numbers[count - 1]);
    numbers = filled;
  }
  return level.encode(numbers, to.highs, lows, places);
}

}  // namespace

double choose_highs(const bfloat16* weight, std::int64_t outputs, std::int64_t inputs,
                    std::uint8_t (&highs)[kCompactHighs]) {
  std::int64_t counts[256] = {};
  const std::int64_t rows = std::min(outputs, kRowsLookedAt);
  for (std::int64_t i = 0; i < rows; ++i) {
    const bfloat16* row = weight + outputs * i / rows * inputs;
    for (std::int64_t k = 0; k < inputs; ++k) ++counts[row[k].bits >> 8];
  }
  std::uint8_t order[256];
  std::iota(std::begin(order), std::end(order), std::uint8_t{0});
  std::partial_sort(order, order + kCompactHighs, std::end(order),
                    [&](std::uint8_t a, std::uint8_t b) {
                      return counts[a] != counts[b] ? counts[a] > counts[b] : a < b;
                    });
  std::copy(order, order + kCompactHighs, highs);
  std::int64_t found = 0;
  for (const std::uint8_t high : highs) found += counts[high];
  const auto all = static_cast<double>(rows * inputs);
  return all > 0 ? 1 - static_cast<double>(found) / all : 0;
}

std::int64_t pack_compact_tile(const bfloat16* weight, const Compact& to, std::int64_t tile,
                               CompactException* exceptions, std::int64_t room, Level level) {
  const CompactKernels& own = kernels_of(level);
  std::int64_t count = 0;
  const std::int64_t first = tile * kCompactOutputs;
  const std::int64_t last = std::min(first + kCompactOutputs, to.outputs);
  for (std::int64_t output = first; output < last; ++output) {
    const bfloat16* row = weight + output * to.inputs;
    const auto encoded = [&](std::int64_t k, std::uint8_t* lows, std::uint8_t* places) {
      const std::int64_t here = std::min(kPiece, to.inputs - k);
      std::uint64_t strange = encode(own, row + k, here, to, lows, places);
      for (; strange != 0; strange &= strange - 1) {
        const std::int64_t number = compact_number(__builtin_ctzll(strange));
        if (number >= here) continue;
        if (count < room) {
          exceptions[count] = {static_cast<std::uint32_t>(k + number),
                               static_cast<std::uint16_t>(output - first), row[k + number].bits};
        }
        ++count;
      }
    };
    for (std::int64_t k = 0; k < to.inputs; k += 2 * kPiece) {
      std::uint8_t* out = to.pair(output, k / (2 * kPiece));
      std::uint8_t places[2][kPiece];
      encoded(k, out, places[0]);
      if (k + kPiece < to.inputs) {
        encoded(k + kPiece, out + kPiece, places[1]);
        for (int i = 0; i < kPiece; ++i) {
          out[2 * kPiece + i] = static_cast<std::uint8_t>(places[0][i] | places[1][i] << 4);
        }
        continue;
      }
      for (int i = 0; i < kPiece / 2; ++i) {
        out[kPiece + i] = static_cast<std::uint8_t>(places[0][i] | places[0][kPiece / 2 + i] << 4);
      }
    }
  }
  if (count <= room) {
    std::sort(exceptions, exceptions + count,
              [](const CompactException& a, const CompactException& b) {
                return a.input != b.input ? a.input < b.input : a.output < b.output;
              });
  }
  return count;
}

void unpack_compact_row(const Compact& weight, std::int64_t output, bfloat16* out) {
  for (std::int64_t piece = 0; piece < weight.pieces(); ++piece) {
    const std::uint8_t* pair = weight.pair(output, piece / 2);
    const bool second = piece % 2 != 0, alone = !second && piece + 1 == weight.pieces();
    const std::uint8_t* lows = pair + (second ? kPiece : 0);
    const std::uint8_t* places = pair + (alone ? kPiece : 2 * kPiece);
    for (int i = 0; i < kPiece; ++i) {
      const std::int64_t k = piece * kPiece + compact_number(i);
      if (k >= weight.inputs) continue;
      const bool high = alone ? i >= kPiece / 2 : second;
      const int both = places[alone ? i % (kPiece / 2) : i];
      const int upper = weight.highs[high ? both >> 4 : both & 15];
      out[k].bits = static_cast<std::uint16_t>(upper << 8 | lows[i]);
    }
  }
  const std::int64_t tile = output / kCompactOutputs;
  for (std::uint32_t i = weight.tiles[tile]; i < weight.tiles[tile + 1]; ++i) {
    const CompactException& each = weight.exceptions[i];
    if (tile * kCompactOutputs + each.output == output) out[each.input].bits = each.bits;
  }
}

void compact_gemv(const CompactGemv& g, std::int64_t begin, std::int64_t end, Level level) {
  const CompactKernels& own = kernels_of(level);
  const std::int64_t direct = g.inputs < kFewInputs ? kRowsOfFewInputs : kCompactRows;
  if (own.gemv != nullptr && g.rows <= direct) return own.gemv(g, begin, end);
  const auto row_bytes = static_cast<std::int64_t>(sizeof(float)) * g.inputs;
  const std::int64_t fit = kTileBytes / std::max<std::int64_t>(1, row_bytes);
  const std::int64_t at_once = std::max<std::int64_t>(1, fit / kCompactOutputs) * kCompactOutputs;
  const auto gemv = gemv_variants().at(level);
  for (std::int64_t o = begin; o < end;) {
    // Ends with a tile.
    const std::int64_t last = std::min((o / kCompactOutputs) * kCompactOutputs + at_once, end);
    auto* floats =
        static_cast<float*>(tile_buffer.get(static_cast<std::size_t>(at_once * row_bytes)));
    own.unpack(g.weight, o, last, floats);
    const std::int64_t next = std::min(at_once, end - last) * g.weight.tile_bytes();
    gemv({floats, g.inputs, g.bias ? g.bias + o : nullptr, g.inputs, g.x, g.x_stride, g.rows,
          g.y + o, g.y_stride, true, g.weight.pair(last, 0), next / kCompactOutputs},
         0, last - o);
    o = last;
  }
}

bool unpacks_in_vectors(Level level) { return level >= Level::kAvx2; }

}  // namespace omnima::kernels
