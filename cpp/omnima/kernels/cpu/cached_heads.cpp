// Chooses the variant of the cache's attention for an instruction-set level.
#include "omnima/kernels/cpu/cached_heads.h"

#include <bit>
#include <cstring>

namespace omnima::kernels {

const CachedHeadKernels& cached_head_kernels_generic();
#ifdef OMNIMA_X86
const CachedHeadKernels& cached_head_kernels_avx2();
const CachedHeadKernels& cached_head_kernels_avx512();
#endif

namespace {

float number_at(const CachedHead& head, const std::uint8_t* memory, std::int64_t i) {
  if (head.format == CacheFormat::kInt8) return static_cast<std::int8_t>(memory[i]);
  std::uint16_t half;
  std::memcpy(&half, memory + 2 * i, sizeof(half));
  return std::bit_cast<float>(std::uint32_t{half} << 16);
}

}  // namespace

void read_cached(const CachedHead& head, std::int64_t token, float* key, float* value) {
  const bool scaled = head.format == CacheFormat::kInt8;
  const float of_key = scaled ? head.key_scales[token] : 1.0f;
  const float of_value = scaled ? head.value_scales[token] : 1.0f;
  const std::int64_t tile = token / kCacheTile * kCacheTile * head.dim + token % kCacheTile;
  const std::int64_t row = token * whole_tiles(head.dim);
  for (std::int64_t i = 0; i < head.dim; ++i) {
    key[i] = number_at(head, head.keys, tile + i * kCacheTile) * of_key;
    value[i] = number_at(head, head.values, row + i) * of_value;
  }
}

const CachedHeadKernels& cached_head_kernels(Level level) {
  static const Variants<const CachedHeadKernels& (*)()> table{
      {Level::kGeneric, cached_head_kernels_generic},
#ifdef OMNIMA_X86
      {Level::kAvx2, cached_head_kernels_avx2},
      {Level::kAvx512, cached_head_kernels_avx512},
#endif
  };
  return table.at(level)();
}

}  // namespace omnima::kernels
