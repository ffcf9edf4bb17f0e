// Numbers that are stored one by one: float32, IEEE half, bfloat16.
#include "omnima/quant/formats/bits.h"
#include "omnima/quant/formats/formats.h"

namespace omnima::quant {
namespace {

void copy_in(const std::uint8_t* blocks, std::int64_t count, float* out) {
  std::memcpy(out, blocks, static_cast<std::size_t>(count) * sizeof(float));
}

void copy_out(const float* numbers, std::int64_t count, std::uint8_t* out) {
  std::memcpy(out, numbers, static_cast<std::size_t>(count) * sizeof(float));
}

void from_half(const std::uint8_t* blocks, std::int64_t count, float* out) {
  for (std::int64_t i = 0; i < count; ++i) out[i] = half_at(blocks + 2 * i);
}

void to_half(const float* numbers, std::int64_t count, std::uint8_t* out) {
  for (std::int64_t i = 0; i < count; ++i) store_u16(out + 2 * i, half_of_float(numbers[i]));
}

void from_bf16(const std::uint8_t* blocks, std::int64_t count, float* out) {
  for (std::int64_t i = 0; i < count; ++i) {
    out[i] = float_of_bits(static_cast<std::uint32_t>(load_u16(blocks + 2 * i)) << 16);
  }
}

// To the nearest, ties to even; a NaN stays one.
void to_bf16(const float* numbers, std::int64_t count, std::uint8_t* out) {
  for (std::int64_t i = 0; i < count; ++i) {
    const std::uint32_t bits = bits_of_float(numbers[i]);
    const bool nan = (bits & 0x7fffffff) > 0x7f800000;
    const std::uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    store_u16(out + 2 * i, static_cast<std::uint16_t>(nan ? bits >> 16 | 0x40 : rounded));
  }
}

// The exponent of a float32 is in its upper half, as in a bfloat16.
constexpr std::uint16_t kWideExponent = 0x7f80;

}  // namespace

const Format kF32{
    "f32", 0, 1, 4, copy_in, copy_out, kernels::BlockLayout::kF32, nullptr, {2}, kWideExponent};
const Format kF16{"f16", 1, 1, 2, from_half, to_half, kernels::BlockLayout::kF16, nullptr, {0}};
const Format kBf16{
    "bf16", 30, 1, 2, from_bf16, to_bf16, kernels::BlockLayout::kBf16, nullptr, {0}, kWideExponent};

}  // namespace omnima::quant
