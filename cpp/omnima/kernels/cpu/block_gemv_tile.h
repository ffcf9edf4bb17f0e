// The loops of block_gemv, shared by its levels; V is a level's vector type. All is private to the
// level's file.
#pragma once

#include <algorithm>
#include <utility>

#include "omnima/kernels/cpu/block_decoders.h"
#include "omnima/kernels/cpu/block_gemv.h"
#include "omnima/kernels/cpu/gemv_sums.h"

namespace omnima::kernels {
namespace {

// Weights are asked for this far ahead of their use, as in gemv.
constexpr std::int64_t kBytesAhead = 2048, kLine = 64;

inline void ask_for(const std::uint8_t* at, std::int64_t bytes) {
  for (std::int64_t i = 0; i < bytes; i += kLine) __builtin_prefetch(at + kBytesAhead + i);
}

// Outputs o..o+O of super-blocks that D decodes.
template <class V, template <class> class D>
struct SuperBlockTile {
  static constexpr int outputs_of(int rows) { return rows <= 2 ? 2 : 1; }

  template <int O, int R>
  static void run(const BlockGemv& g, std::int64_t o) {
    using Decoder = D<V>;
    const std::int64_t row = g.inputs / Decoder::kNumbers * Decoder::kBytes;
    const std::uint8_t* weight = g.weight + o * row;
    ask_for(weight, O * row);
    Sums<V, O, R> sums;
    for (std::int64_t k = 0; k < g.inputs; k += Decoder::kNumbers, weight += Decoder::kBytes) {
      for (int i = 0; i < O; ++i) {
        const Decoder block(weight + i * row);
#pragma GCC unroll 32
        for (int v = 0; v < Decoder::kNumbers / V::kWidth; ++v) {
          sums.add(i, block.at(v), g, k + v * V::kWidth);
        }
      }
    }
    sums.write(g, o);
  }
};

// The two halves that each of `count` blocks, at most kBlocksAtOnce, begins with: a vector of them
// becomes floats in one step, and a product takes those from memory, without a turn through its
// registers. `out` has room for whole vectors.
constexpr std::int64_t kBlocksAtOnce = 48;

template <class V>
inline void read_halves(const std::uint8_t* blocks, std::int64_t bytes, std::int64_t count,
                        float* out) {
  for (std::int64_t i = 0; i < count; i += V::kWidth, out += 2 * V::kWidth) {
    V::write_halves(blocks + i * bytes, static_cast<int>(bytes), static_cast<int>(count - i), out);
  }
}

// Outputs o..o+O of blocks that D decodes from their halves.
template <class V, template <class> class D>
struct BlockTile {
  using Decoder = D<V>;
  static constexpr int kNumbers = Decoder::kNumbers, kVectors = kNumbers / V::kWidth;
  static_assert(kBlocksAtOnce % V::kWidth == 0);
  // As many sums and inputs as there are registers: 32 of 16 lanes, else 16.
  static constexpr int outputs_of(int rows) {
    if (V::kWidth < 16) return rows <= 2 ? 2 : 1;
    return rows <= 4 ? 4 : rows <= 6 ? 3 : 2;
  }

  template <int O, int R>
  static void run(const BlockGemv& g, std::int64_t o) {
    const std::int64_t blocks = g.inputs / kNumbers, row = blocks * Decoder::kBytes;
    const std::uint8_t* weight = g.weight + o * row;
    ask_for(weight, O * row);
    Sums<V, O, R> sums;
    for (std::int64_t first = 0; first < blocks; first += kBlocksAtOnce) {
      const std::int64_t count = std::min(kBlocksAtOnce, blocks - first);
      alignas(64) float halves[O][2 * kBlocksAtOnce];
      for (int i = 0; i < O; ++i) {
        read_halves<V>(weight + i * row + first * Decoder::kBytes, Decoder::kBytes, count,
                       halves[i]);
      }
      add<R>(sums, g, weight + first * Decoder::kBytes, first * kNumbers, count, halves,
             std::make_integer_sequence<int, O>());
    }
    sums.write(g, o);
  }

 private:
  // Adds the products of `count` blocks of each output, of which the first is that of input k.
  template <int R, int... kOutputs>
  static void add(Sums<V, sizeof...(kOutputs), R>& sums, const BlockGemv& g,
                  const std::uint8_t* weight, std::int64_t k, std::int64_t count,
                  const float (&halves)[sizeof...(kOutputs)][2 * kBlocksAtOnce],
                  std::integer_sequence<int, kOutputs...>) {
    const std::int64_t row = g.inputs / kNumbers * Decoder::kBytes;
    for (std::int64_t b = 0; b < count; ++b, k += kNumbers, weight += Decoder::kBytes) {
      const Decoder blocks[] = {Decoder(weight + kOutputs * row, halves[kOutputs] + 2 * b)...};
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        typename V::Type x[R];
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          x[r] = V::load(g.x + r * g.x_stride + k + v * V::kWidth);
          // Loaded once: compilers would rather load it again for each output.
          if constexpr (R > 2) asm("" : "+v"(x[r]));
        }
        (sums.add(kOutputs, blocks[kOutputs].at(v), x), ...);
      }
    }
  }
};

// The same with groups of a size that the format gives.
template <class V, template <class> class D>
struct GroupTile {
  using Decoder = D<V>;
  static constexpr int outputs_of(int rows) { return BlockTile<V, Q8_0>::outputs_of(rows); }

  template <int O, int R>
  static void run(const BlockGemv& g, std::int64_t o) {
    const GroupSizes sizes = Decoder::sizes(g.format);
    const std::int64_t row = g.inputs / g.format.numbers * g.format.bytes;
    const std::uint8_t* weight = g.weight + o * row;
    ask_for(weight, O * row);
    Sums<V, O, R> sums;
    for (std::int64_t k = 0; k < g.inputs; weight += g.format.bytes) {
      for (std::int64_t group = 0; group < sizes.groups; ++group, k += sizes.numbers) {
        add<R>(sums, g, sizes, weight, row, group, k, std::make_integer_sequence<int, O>());
      }
    }
    sums.write(g, o);
  }

 private:
  // Adds the products of a group of each output, which begins with input k.
  template <int R, int... kOutputs>
  static void add(Sums<V, sizeof...(kOutputs), R>& sums, const BlockGemv& g,
                  const GroupSizes& sizes, const std::uint8_t* weight, std::int64_t row,
                  std::int64_t group, std::int64_t k, std::integer_sequence<int, kOutputs...>) {
    const Decoder of[] = {Decoder(sizes, weight + kOutputs * row, group)...};
    for (std::int64_t first = 0; first < sizes.numbers; first += Decoder::kStep) {
#pragma GCC unroll 4
      for (int v = 0; v < Decoder::kStep / V::kWidth; ++v) {
        typename V::Type x[R];
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          x[r] = V::load(g.x + r * g.x_stride + k + first + v * V::kWidth);
        }
        (sums.add(kOutputs, of[kOutputs].at(first, v), x), ...);
      }
    }
  }
};

// The same with numbers of 16 bits, which kLoad widens; their rows may end within a vector.
template <class V, auto kLoad>
struct ShortTile {
  static constexpr int outputs_of(int rows) { return rows <= 2 ? 2 : 1; }

  template <int O, int R>
  static void run(const BlockGemv& g, std::int64_t o) {
    const std::uint8_t* weight = g.weight + 2 * o * g.inputs;
    ask_for(weight, 2 * O * g.inputs);
    Sums<V, O, R> sums;
    std::int64_t k = 0;
    for (; k + V::kWidth <= g.inputs; k += V::kWidth) {
      for (int i = 0; i < O; ++i) sums.add(i, kLoad(weight + 2 * (i * g.inputs + k)), g, k);
    }
    if (const int rest = static_cast<int>(g.inputs - k)) {
      for (int i = 0; i < O; ++i) {
        std::uint8_t last[2 * V::kWidth] = {};
        std::memcpy(last, weight + 2 * (i * g.inputs + k), 2 * static_cast<std::size_t>(rest));
        sums.add_part(i, kLoad(last), g, k, rest);
      }
    }
    sums.write(g, o);
  }
};

// Several outputs side by side, so that a sum need not wait for itself, and inputs that were loaded
// serve them all.
template <class Tile, int O, int R>
inline void outputs(const BlockGemv& g, std::int64_t begin, std::int64_t end) {
  for (; begin + O <= end; begin += O) Tile::template run<O, R>(g, begin);
  for (; begin < end; ++begin) Tile::template run<1, R>(g, begin);
}

template <class Tile>
void block_range(const BlockGemv& g, std::int64_t begin, std::int64_t end) {
  switch (g.rows) {
    case 1:
      return outputs<Tile, Tile::outputs_of(1), 1>(g, begin, end);
    case 2:
      return outputs<Tile, Tile::outputs_of(2), 2>(g, begin, end);
    case 3:
      return outputs<Tile, Tile::outputs_of(3), 3>(g, begin, end);
    case 4:
      return outputs<Tile, Tile::outputs_of(4), 4>(g, begin, end);
    case 5:
      return outputs<Tile, Tile::outputs_of(5), 5>(g, begin, end);
    case 6:
      return outputs<Tile, Tile::outputs_of(6), 6>(g, begin, end);
    case 7:
      return outputs<Tile, Tile::outputs_of(7), 7>(g, begin, end);
    case 8:
      return outputs<Tile, Tile::outputs_of(8), 8>(g, begin, end);
    default:
      return;
  }
}

template <class V, template <class> class D, class Out>
void write_super_blocks(const Blocks&, const std::uint8_t* blocks, std::int64_t count, Out* out) {
  using Decoder = D<V>;
  for (; count > 0; --count, blocks += Decoder::kBytes, out += Decoder::kNumbers) {
    const Decoder block(blocks);
#pragma GCC unroll 32
    for (int v = 0; v < Decoder::kNumbers / V::kWidth; ++v) {
      V::store(out + v * V::kWidth, block.at(v));
    }
  }
}

template <class V, template <class> class D, class Out>
void write_blocks(const Blocks&, const std::uint8_t* blocks, std::int64_t count, Out* out) {
  using Decoder = D<V>;
  alignas(64) float halves[2 * kBlocksAtOnce];
  for (; count > 0; count -= kBlocksAtOnce) {
    const std::int64_t here = std::min(kBlocksAtOnce, count);
    read_halves<V>(blocks, Decoder::kBytes, here, halves);
    for (std::int64_t b = 0; b < here; ++b, blocks += Decoder::kBytes, out += Decoder::kNumbers) {
      const Decoder block(blocks, halves + 2 * b);
#pragma GCC unroll 4
      for (int v = 0; v < Decoder::kNumbers / V::kWidth; ++v) {
        V::store(out + v * V::kWidth, block.at(v));
      }
    }
  }
}

template <class V, template <class> class D, class Out>
void write_groups(const Blocks& format, const std::uint8_t* blocks, std::int64_t count, Out* out) {
  using Decoder = D<V>;
  const GroupSizes sizes = Decoder::sizes(format);
  for (; count > 0; --count, blocks += format.bytes) {
    for (std::int64_t group = 0; group < sizes.groups; ++group) {
      const Decoder of(sizes, blocks, group);
      for (std::int64_t first = 0; first < sizes.numbers; first += Decoder::kStep) {
        for (int v = 0; v < Decoder::kStep / V::kWidth; ++v, out += V::kWidth) {
          V::store(out, of.at(first, v));
        }
      }
    }
  }
}

template <class V, auto kLoad, class Out>
void write_short(const Blocks&, const std::uint8_t* numbers, std::int64_t count, Out* out) {
  std::int64_t i = 0;
  for (; i + V::kWidth <= count; i += V::kWidth) V::store(out + i, kLoad(numbers + 2 * i));
  if (i == count) return;
  std::uint8_t last[2 * V::kWidth] = {};
  Out rest[V::kWidth];
  std::memcpy(last, numbers + 2 * i, 2 * static_cast<std::size_t>(count - i));
  V::store(rest, kLoad(last));
  std::memcpy(out + i, rest, sizeof(Out) * static_cast<std::size_t>(count - i));
}

template <class V, template <class> class D>
BlockKernels of_blocks() {
  return {block_range<BlockTile<V, D>>, write_blocks<V, D, float>, write_blocks<V, D, bfloat16>};
}

template <class V, template <class> class D>
BlockKernels of_super_blocks() {
  return {block_range<SuperBlockTile<V, D>>, write_super_blocks<V, D, float>,
          write_super_blocks<V, D, bfloat16>};
}

// Nothing where a group does not end with a step.
template <class V, template <class> class D>
BlockKernels of_groups(const Blocks& format) {
  if (D<V>::sizes(format).numbers % D<V>::kStep != 0) return {};
  return {block_range<GroupTile<V, D>>, write_groups<V, D, float>, write_groups<V, D, bfloat16>};
}

// More rows gain by float32 in the first caches, where four outputs share what is loaded.
template <class V, auto kLoad>
BlockKernels of_short() {
  return {block_range<ShortTile<V, kLoad>>, write_short<V, kLoad, float>,
          write_short<V, kLoad, bfloat16>, 2};
}

template <class V>
BlockKernels block_kernels(const Blocks& format) {
  switch (format.layout) {
    case BlockLayout::kF16:
      return of_short<V, V::halves>();
    case BlockLayout::kBf16:
      return of_short<V, V::brain_floats>();
    case BlockLayout::kQ8_0:
      return of_blocks<V, Q8_0>();
    case BlockLayout::kQ4_0:
      return of_blocks<V, Q4_0>();
    case BlockLayout::kQ4_1:
      return of_blocks<V, Q4_1>();
    case BlockLayout::kQ5_0:
      return of_blocks<V, Q5_0>();
    case BlockLayout::kQ5_1:
      return of_blocks<V, Q5_1>();
    case BlockLayout::kQ2K:
      return of_super_blocks<V, Q2K>();
    case BlockLayout::kQ3K:
      return of_super_blocks<V, Q3K>();
    case BlockLayout::kQ4K:
      return of_super_blocks<V, Q4K>();
    case BlockLayout::kQ5K:
      return of_super_blocks<V, Q5K>();
    case BlockLayout::kQ6K:
      return of_super_blocks<V, Q6K>();
    case BlockLayout::kInt8:
      return of_groups<V, Int8Group>(format);
    case BlockLayout::kInt4:
      return of_groups<V, Int4>(format);
    case BlockLayout::kInt4Z:
      return of_groups<V, Int4Z>(format);
    case BlockLayout::kNf4:
      return of_groups<V, Nf4>(format);
    case BlockLayout::kF32:
    case BlockLayout::kOther:
      break;
  }
  return {};
}

}  // namespace
}  // namespace omnima::kernels
