// Attention of single queries to keys and values that a cache holds in float32, in bfloat16 or in 8
// bits. The kernels read the cache as it lies; sums are float32, each in one fixed order, whatever
// the number of queries and the range of tokens beside.
#pragma once

#include <cstdint>

#include "omnima/kernels/cpu/cpu_features.h"

namespace omnima::kernels {

// kInt8: whole numbers -127 to 127 that share a float32 scale, one for a token's key and one for
// its value; the largest number of either becomes 127.
enum class CacheFormat { kFloat32, kBf16, kInt8 };

// Tokens side by side in memory.
inline constexpr std::int64_t kCacheTile = 16;
constexpr std::int64_t whole_tiles(std::int64_t count) {
  return (count + kCacheTile - 1) / kCacheTile * kCacheTile;
}

// The memory of one key-value head of one sequence, for whole tiles of tokens.
struct CachedHead {
  CacheFormat format;
  std::int64_t dim;
  // [tiles, dim, 16]: the same number of 16 tokens side by side, so that a vector of queries'
  // products is a vector of scores.
  std::uint8_t* keys;
  std::uint8_t* values;              // [tokens, whole_tiles(dim)]; beyond dim zeros
  float *key_scales, *value_scales;  // [tokens]; kInt8 alone

  static std::int64_t number_bytes(CacheFormat format) {
    return format == CacheFormat::kFloat32 ? 4 : format == CacheFormat::kBf16 ? 2 : 1;
  }
};

struct CachedHeadKernels {
  // Rounds a token's key and value [dim] into the cache. In 8 bits NaN and infinity make all of a
  // token's numbers NaN; in the others they stay what they are.
  void (*write)(const CachedHead& head, std::int64_t token, const float* key, const float* value);
  // out [rows, end - begin], rows `stride` apart: the products of queries [rows, dim] with the keys
  // of the tokens begin to end.
  void (*scores)(const CachedHead& head, std::int64_t begin, std::int64_t end, const float* queries,
                 std::int64_t rows, float* out, std::int64_t stride);
  // sums [rows, whole_tiles(dim)] += weights [rows, end - begin], rows `stride` apart, times the
  // values of the tokens begin to end. The weights are scratch: they do not stay what they were.
  void (*add_values)(const CachedHead& head, std::int64_t begin, std::int64_t end, float* weights,
                     std::int64_t stride, std::int64_t rows, float* sums);
};

// Keys and values [count, dim] of the tokens from `first` on, as the cache has them; all of them
// lie in one tile.
void read_cached(const CachedHead& head, std::int64_t first, std::int64_t count, float* keys,
                 float* values);

// The kernels of an instruction-set level; a level without its own takes the next lower one.
const CachedHeadKernels& cached_head_kernels(Level level = active_level());

}  // namespace omnima::kernels
