#include "omnima/core/block_pattern.h"

namespace omnima::core {
namespace {

double triangle(double side) { return side * (side + 1) / 2; }

}  // namespace

double seen_pairs(std::int64_t time, std::int64_t heads, std::int64_t window,
                  const BlockPattern& blocks) {
  const auto all = static_cast<double>(time), count = static_cast<double>(heads);
  if (blocks.size == 0) {
    const auto hidden = static_cast<double>(window > 0 ? std::max<std::int64_t>(0, time - window)
                                                       : std::int64_t{0});
    return count * (triangle(all) - triangle(hidden));
  }
  double pairs = 0;
  for (std::int64_t block = 0; block * blocks.size < time; ++block) {
    const std::int64_t first = block * blocks.size, keys = std::min(blocks.size, time - first);
    const std::int64_t near = std::min(time - first, blocks.local * blocks.size);
    // The j-th key of a block is seen from itself on: by `last` queries less j.
    const auto from = [&](std::int64_t last) {
      return static_cast<double>(keys * last) - triangle(static_cast<double>(keys - 1));
    };
    for (std::int64_t head = 0; head < heads; ++head) {
      pairs += from(blocks.strided(head, block) ? time - first : near);
    }
  }
  return pairs;
}

}  // namespace omnima::core
