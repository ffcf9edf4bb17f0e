// Chooses the variant of a level. Those below avx512bf16 take the rounded activations as float32
// numbers, and sum as block_gemv does.
#include "omnima/kernels/cpu/half_gemv.h"

#include <bit>

#include "omnima/kernels/cpu/block_gemv.h"
#include "omnima/kernels/cpu/gemm.h"

namespace omnima::kernels {

#ifdef OMNIMA_X86
HalfGemvKernels half_gemv_kernels_avx512bf16();
HalfGemvKernels half_gemv_kernels_amx();
#endif

namespace {

HalfGemvKernels none() { return {}; }

HalfGemvKernels kernels_of(Level level) {
  static const Variants<HalfGemvKernels (*)()> table{
      {Level::kGeneric, none},
#ifdef OMNIMA_X86
      {Level::kAvx512Bf16, half_gemv_kernels_avx512bf16},
      {Level::kAmx, half_gemv_kernels_amx},
#endif
  };
  return table.at(level)();
}

void widen(const bfloat16* from, std::int64_t count, float* out) {
  for (std::int64_t i = 0; i < count; ++i) {
    out[i] = std::bit_cast<float>(std::uint32_t{from[i].bits} << 16);
  }
}

// A row's numbers are rounded a few at a time.
void pack_floats(const float* x, std::int64_t first, std::int64_t last, std::int64_t inputs,
                 float* packed, Level level) {
  constexpr std::int64_t kAtOnce = 256;
  bfloat16 rounded[kAtOnce];
  const auto& gemm = gemm_kernels<bfloat16>(level);
  for (std::int64_t i = first * inputs; i < last * inputs; i += kAtOnce) {
    const std::int64_t count = last * inputs - i < kAtOnce ? last * inputs - i : kAtOnce;
    gemm.convert(x + i, count, rounded);
    widen(rounded, count, packed + i);
  }
}

const Blocks& bfloat16_blocks() {
  static const Blocks blocks{BlockLayout::kBf16, 1, sizeof(bfloat16),
                             [](const std::uint8_t* from, std::int64_t count, float* out) {
                               widen(reinterpret_cast<const bfloat16*>(from), count, out);
                             }};
  return blocks;
}

}  // namespace

std::int64_t half_rows_bytes(std::int64_t rows, std::int64_t inputs, Level level) {
  const auto own = kernels_of(level);
  if (own.bytes != nullptr) return own.bytes(rows, inputs);
  return rows * inputs * static_cast<std::int64_t>(sizeof(float));
}

void pack_half_rows(const float* x, std::int64_t first, std::int64_t last, std::int64_t inputs,
                    void* packed, Level level) {
  const auto own = kernels_of(level);
  if (own.pack != nullptr) return own.pack(x, first, last, inputs, packed);
  pack_floats(x, first, last, inputs, static_cast<float*>(packed), level);
}

void half_gemv(const HalfGemv& g, std::int64_t begin, std::int64_t end, Level level) {
  const auto own = kernels_of(level);
  if (own.gemv != nullptr) return own.gemv(g, begin, end);
  block_gemv({bfloat16_blocks(), reinterpret_cast<const std::uint8_t*>(g.weight), g.bias, g.inputs,
              static_cast<const float*>(g.x), g.inputs, g.rows, g.y, g.y_stride},
             begin, end, level);
}

}  // namespace omnima::kernels
