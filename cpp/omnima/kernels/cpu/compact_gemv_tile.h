// The loops of compact_gemv, shared by its levels. P is a level's: V its vector of floats, and what
// makes such vectors of a piece. All is private to the level's file.
#pragma once

#include <algorithm>
#include <bit>

#include "omnima/kernels/cpu/compact_gemv.h"
#include "omnima/kernels/cpu/gemv_sums.h"

namespace omnima::kernels {
namespace {

constexpr std::int64_t kBytesAhead = 2048, kPiece = kCompactPiece, kPair = 2 * kPiece;
constexpr std::int64_t kPairBytes = 3 * kPiece;

template <class P, int O, int R>
class CompactTile {
 public:
  CompactTile(const CompactGemv& g, std::int64_t o)
      : g_(g), o_(o), ahead_(O == kCompactOutputs ? kBytesAhead : g.weight.tile_bytes()) {}

  void run() {
    const Compact& w = g_.weight;
    const std::int64_t pairs = w.inputs / kPair, rest = w.inputs % kPair;
    const std::int64_t tile = o_ / kCompactOutputs, first = o_ % kCompactOutputs;
    std::int64_t next = 0;  // pair
    const CompactException* each = w.exceptions + w.tiles[tile];
    const CompactException* const end = w.exceptions + w.tiles[tile + 1];
    while (each != end) {
      const std::int64_t pair = each->input / kPair;
      const CompactException* of_pair = each;
      bool ours = false;
      for (; each != end && each->input / kPair == pair; ++each) {
        ours = ours || (each->output >= first && each->output < first + O);
      }
      if (!ours) continue;
      add(next, std::min(pair, pairs));
      add_by_memory(pair, of_pair, each);
      next = pair + 1;
    }
    add(next, pairs);
    if (rest != 0 && next <= pairs) {
      if (rest == kPiece) {
        add_last();
      } else {
        add_by_memory(pairs, end, end);
      }
    }
    sums_.write(g_, o_);
  }

 private:
  using V = typename P::V;
  static constexpr int kVectors = kPiece / V::kWidth;
  // Numbers of all outputs and their sums fit the registers.
  static constexpr bool kSharesInputs = P::kManyRegisters && O == 2 && R > 2;

  void add(int output, const std::uint8_t* lows, typename P::Places places, std::int64_t k) {
    typename V::Type numbers[kVectors];
    unpack_.numbers(lows, places, numbers);
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) sums_.add(output, numbers[v], g_, k + v * V::kWidth);
  }

  void add(std::int64_t from, std::int64_t to) {
    const std::uint8_t* at = g_.weight.pair(o_, from);
    for (; from < to; ++from, at += kCompactOutputs * kPairBytes) {
      typename P::Both both[O];
#pragma GCC unroll 4
      for (int i = 0; i < O; ++i) {
        const std::uint8_t* pair = at + i * kPairBytes;
        __builtin_prefetch(pair + ahead_);
        __builtin_prefetch(pair + ahead_ + 64);
        __builtin_prefetch(pair + ahead_ + 128);
        both[i] = P::both(pair + kPair);
        if constexpr (kSharesInputs) continue;
        add(i, pair, P::low(both[i]), from * kPair);
        add(i, pair + kPiece, P::high(both[i]), from * kPair + kPiece);
      }
      if constexpr (kSharesInputs) {
        typename P::Places low[O], high[O];
        for (int i = 0; i < O; ++i) low[i] = P::low(both[i]), high[i] = P::high(both[i]);
        add_side_by_side(at, low, from * kPair);
        add_side_by_side(at + kPiece, high, from * kPair + kPiece);
      }
    }
  }

  // The same piece of each output: inputs that were loaded serve them all.
  void add_side_by_side(const std::uint8_t* lows, const typename P::Places (&places)[O],
                        std::int64_t k) {
    typename V::Type numbers[O][kVectors];
#pragma GCC unroll 4
    for (int i = 0; i < O; ++i) unpack_.numbers(lows + i * kPairBytes, places[i], numbers[i]);
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        auto x = V::load(g_.x + r * g_.x_stride + k + v * V::kWidth);
        // Loaded once: compilers would rather load it again for each output.
        asm("" : "+v"(x));
#pragma GCC unroll 4
        for (int i = 0; i < O; ++i) {
          sums_.at[i][r] = V::multiply_add(numbers[i][v], x, sums_.at[i][r]);
        }
      }
    }
  }

  // A piece without a second, of 64 numbers.
  void add_last() {
    const std::int64_t pairs = g_.inputs / kPair;
    for (int i = 0; i < O; ++i) {
      const std::uint8_t* piece = g_.weight.pair(o_ + i, pairs);
      add(i, piece, P::alone(piece + kPiece), pairs * kPair);
    }
  }

  void write(const std::uint8_t* lows, typename P::Places places, float* out) const {
    typename V::Type numbers[kVectors];
    unpack_.numbers(lows, places, numbers);
    for (int v = 0; v < kVectors; ++v) V::store(out + v * V::kWidth, numbers[v]);
  }

  // Of a pair, or what there is of the last, with exceptions among it.
  void add_by_memory(std::int64_t index, const CompactException* from, const CompactException* to) {
    const std::int64_t k = index * kPair, count = std::min(kPair, g_.inputs - k);
    const std::int64_t first = o_ % kCompactOutputs;
    for (int i = 0; i < O; ++i) {
      const std::uint8_t* pair = g_.weight.pair(o_ + i, index);
      alignas(64) float numbers[kPair];
      if (count > kPiece) {
        const typename P::Both both = P::both(pair + kPair);
        write(pair, P::low(both), numbers);
        write(pair + kPiece, P::high(both), numbers + kPiece);
      } else {
        write(pair, P::alone(pair + kPiece), numbers);
      }
      for (const CompactException* each = from; each != to; ++each) {
        if (each->output != first + i) continue;
        numbers[each->input - k] = std::bit_cast<float>(std::uint32_t{each->bits} << 16);
      }
      std::int64_t j = 0;
      for (; j + V::kWidth <= count; j += V::kWidth) {
        sums_.add(i, V::load(numbers + j), g_, k + j);
      }
      if (const int rest = static_cast<int>(count - j)) {
        sums_.add_part(i, V::load_part(numbers + j, rest), g_, k + j, rest);
      }
    }
  }

  const CompactGemv& g_;
  std::int64_t o_, ahead_;
  P unpack_{g_.weight.highs};
  Sums<V, O, R> sums_;
};

// Several outputs of a tile side by side, so that a sum need not wait for itself.
template <class P, int O, int R>
inline void compact_outputs(const CompactGemv& g, std::int64_t begin, std::int64_t end) {
  for (; begin < end && begin % O != 0; ++begin) CompactTile<P, 1, R>(g, begin).run();
  for (; begin + O <= end; begin += O) CompactTile<P, O, R>(g, begin).run();
  for (; begin < end; ++begin) CompactTile<P, 1, R>(g, begin).run();
}

// The rows begin..end as float32.
template <class P>
void compact_unpack(const Compact& w, std::int64_t begin, std::int64_t end, float* out) {
  using V = typename P::V;
  constexpr int kVectors = kPiece / V::kWidth;
  const P unpack(w.highs);
  float* to = out;
  for (std::int64_t o = begin; o < end; ++o, to += w.inputs) {
    const auto write = [&](const std::uint8_t* lows, typename P::Places places, std::int64_t k) {
      typename V::Type numbers[kVectors];
      unpack.numbers(lows, places, numbers);
      if (k + kPiece <= w.inputs) {
        for (int v = 0; v < kVectors; ++v) V::store(to + k + v * V::kWidth, numbers[v]);
        return;
      }
      alignas(64) float last[kPiece];
      for (int v = 0; v < kVectors; ++v) V::store(last + v * V::kWidth, numbers[v]);
      std::copy(last, last + (w.inputs - k), to + k);
    };
    std::int64_t k = 0;
    for (; k + kPiece < w.inputs; k += kPair) {
      const std::uint8_t* pair = w.pair(o, k / kPair);
      __builtin_prefetch(pair + kBytesAhead);
      __builtin_prefetch(pair + kBytesAhead + 64);
      __builtin_prefetch(pair + kBytesAhead + 128);
      const typename P::Both both = P::both(pair + kPair);
      write(pair, P::low(both), k);
      write(pair + kPiece, P::high(both), k + kPiece);
    }
    if (k < w.inputs) {
      const std::uint8_t* piece = w.pair(o, k / kPair);
      write(piece, P::alone(piece + kPiece), k);
    }
  }
  for (std::int64_t tile = begin / kCompactOutputs; tile * kCompactOutputs < end; ++tile) {
    for (std::uint32_t i = w.tiles[tile]; i < w.tiles[tile + 1]; ++i) {
      const CompactException& each = w.exceptions[i];
      const std::int64_t o = tile * kCompactOutputs + each.output;
      if (o < begin || o >= end) continue;
      out[(o - begin) * w.inputs + each.input] =
          std::bit_cast<float>(std::uint32_t{each.bits} << 16);
    }
  }
}

template <class P>
void compact_range(const CompactGemv& g, std::int64_t begin, std::int64_t end) {
  constexpr int kTwo = P::kManyRegisters ? 4 : 2, kFew = P::kManyRegisters ? 2 : 1;
  switch (g.rows) {
    case 1:
      return compact_outputs<P, 4, 1>(g, begin, end);
    case 2:
      return compact_outputs<P, kTwo, 2>(g, begin, end);
    case 3:
      return compact_outputs<P, kFew, 3>(g, begin, end);
    case 4:
      return compact_outputs<P, kFew, 4>(g, begin, end);
    case 5:
      return compact_outputs<P, kFew, 5>(g, begin, end);
    case 6:
      return compact_outputs<P, kFew, 6>(g, begin, end);
    case 7:
      return compact_outputs<P, kFew, 7>(g, begin, end);
    case 8:
      return compact_outputs<P, kFew, 8>(g, begin, end);
    default:
      return;
  }
}

}  // namespace
}  // namespace omnima::kernels
