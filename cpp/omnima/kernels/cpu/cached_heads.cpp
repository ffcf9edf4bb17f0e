// Chooses the variant of the cache's attention for an instruction-set level.
#include "omnima/kernels/cpu/cached_heads.h"

#include <bit>

namespace omnima::kernels {

const CachedHeadKernels& cached_head_kernels_generic();
#ifdef OMNIMA_X86
const CachedHeadKernels& cached_head_kernels_avx2();
const CachedHeadKernels& cached_head_kernels_avx512();
#endif

namespace {

struct Floats {
  static float at(const std::uint8_t* memory, std::int64_t i) {
    return reinterpret_cast<const float*>(memory)[i];
  }
};

struct BrainFloats {
  static float at(const std::uint8_t* memory, std::int64_t i) {
    const auto bits = reinterpret_cast<const std::uint16_t*>(memory)[i];
    return std::bit_cast<float>(std::uint32_t{bits} << 16);
  }
};

struct Bytes {
  static float at(const std::uint8_t* memory, std::int64_t i) {
    return static_cast<std::int8_t>(memory[i]);
  }
};

template <class N>
void read(const CachedHead& head, std::int64_t first, std::int64_t count, float* keys,
          float* values) {
  const bool scaled = head.key_scales != nullptr;
  for (std::int64_t token = first; token < first + count; ++token) {
    const float of_key = scaled ? head.key_scales[token] : 1.0f;
    const float of_value = scaled ? head.value_scales[token] : 1.0f;
    const std::int64_t tile = token / kCacheTile * kCacheTile * head.dim + token % kCacheTile;
    const std::int64_t row = token * whole_tiles(head.dim);
    for (std::int64_t i = 0; i < head.dim; ++i) {
      *keys++ = N::at(head.keys, tile + i * kCacheTile) * of_key;
    }
    for (std::int64_t i = 0; i < head.dim; ++i) *values++ = N::at(head.values, row + i) * of_value;
  }
}

}  // namespace

void read_cached(const CachedHead& head, std::int64_t first, std::int64_t count, float* keys,
                 float* values) {
  const auto function = head.format == CacheFormat::kFloat32 ? read<Floats>
                        : head.format == CacheFormat::kBf16  ? read<BrainFloats>
                                                             : read<Bytes>;
  function(head, first, count, keys, values);
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
