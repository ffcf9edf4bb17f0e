// How the numbers of a group are made: scale * values[level] + least. What methods choose are the
// scales, the least numbers and the levels; a format packs them.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace omnima::quant {

struct Grid {
  std::int64_t group;         // numbers that share a scale
  bool has_least;             // else least is 0
  std::vector<float> values;  // of the levels, ascending
  // Rounds the scales (and least numbers) of the groups of one block to what the block can hold.
  std::function<void(float* scales, float* least, std::int64_t groups)> settle;
  // One block, from settled scales.
  std::function<void(const float* scales, const float* least, const std::uint8_t* levels,
                     std::uint8_t* block)>
      pack;

  bool uniform() const { return values[1] - values[0] == 1.0f; }
  // The nearest levels of `count` numbers of one group.
  void nearest(const float* numbers, std::int64_t count, float scale, float least,
               std::uint8_t* levels) const;
  std::uint8_t nearest(float number, float scale, float least) const {
    std::uint8_t level;
    nearest(&number, 1, scale, least, &level);
    return level;
  }
};

}  // namespace omnima::quant
