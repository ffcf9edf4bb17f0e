#include "omnima/quant/compact.h"

#include <algorithm>
#include <atomic>

#include "omnima/core/error.h"

namespace omnima::quant {
namespace {

using kernels::bfloat16;
using kernels::CompactException;

// An exception takes a whole pair of pieces through memory: one of so many numbers at most.
constexpr std::int64_t kNumbersOfAnException = 1024;
constexpr std::int64_t kTilesAtOnce = 16;

}  // namespace

std::shared_ptr<const CompactMatrix> compacted(const Matrix& matrix, PackedMemory& memory,
                                               const Share& share) {
  core::require<core::ConfigError>(matrix.format->layout == kernels::BlockLayout::kBf16,
                                   "A matrix of the format ", matrix.format->name,
                                   " has no compact layout: only bf16 has.");
  auto made = std::make_shared<CompactMatrix>();
  kernels::Compact& layout = made->layout;
  layout.outputs = matrix.outputs;
  layout.inputs = matrix.inputs;
  const std::int64_t numbers = matrix.outputs * matrix.inputs;
  if (numbers == 0) return nullptr;
  const auto* weight = reinterpret_cast<const bfloat16*>(matrix.row(0));
  const double others = kernels::choose_highs(weight, matrix.outputs, matrix.inputs, layout.highs);
  if (others * kNumbersOfAnException > 1) return nullptr;
  const auto part = memory.take(layout.bytes());
  made->memory = part.owner;
  layout.data = part.data;

  // Each group of tiles has room of its own for its exceptions.
  const std::int64_t tiles = layout.tile_count();
  const std::int64_t groups = (tiles + kTilesAtOnce - 1) / kTilesAtOnce;
  const std::int64_t room =
      kTilesAtOnce * kernels::kCompactOutputs * matrix.inputs * 4 / kNumbersOfAnException + 16;
  std::vector<CompactException> found(static_cast<std::size_t>(groups * room));
  std::vector<std::int64_t> counts(static_cast<std::size_t>(tiles));
  std::atomic<bool> fits{true};
  share(groups, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t group = begin; group < end && fits; ++group) {
      std::int64_t used = 0;
      const std::int64_t last = std::min((group + 1) * kTilesAtOnce, tiles);
      for (std::int64_t tile = group * kTilesAtOnce; tile < last; ++tile) {
        const std::int64_t count = kernels::pack_compact_tile(
            weight, layout, tile, found.data() + group * room + used, room - used);
        if (count > room - used) {
          fits = false;
          break;
        }
        counts[static_cast<std::size_t>(tile)] = count;
        used += count;
      }
    }
  });
  if (!fits) return nullptr;
  made->tiles.reserve(static_cast<std::size_t>(tiles + 1));
  made->tiles.push_back(0);
  for (std::int64_t group = 0; group < groups; ++group) {
    const CompactException* from = found.data() + group * room;
    const std::int64_t last = std::min((group + 1) * kTilesAtOnce, tiles);
    for (std::int64_t tile = group * kTilesAtOnce; tile < last; ++tile) {
      const std::int64_t count = counts[static_cast<std::size_t>(tile)];
      made->exceptions.insert(made->exceptions.end(), from, from + count);
      made->tiles.push_back(static_cast<std::uint32_t>(made->exceptions.size()));
      from += count;
    }
  }
  if (std::ssize(made->exceptions) * kNumbersOfAnException > numbers + kNumbersOfAnException) {
    return nullptr;
  }
  layout.exceptions = made->exceptions.data();
  layout.tiles = made->tiles.data();
  return made;
}

}  // namespace omnima::quant
