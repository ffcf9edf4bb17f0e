// How pieces of a DecodeMatrix become float32, for .cu files only.
#pragma once

#include <cuda_fp16.h>

#include "omnima/kernels/cuda/decode_matrix.h"
#include "omnima/kernels/cuda/device.h"

namespace omnima::kernels::cuda {

__device__ inline float half_to_float(std::uint16_t bits) {
  return __half2float(__ushort_as_half(bits));
}

template <Numbers kKind>
constexpr std::int64_t kPieceNumbers = numbers_of_piece(kKind);

// Numbers that are unpacked at once.
template <Numbers kKind>
constexpr int kChunk = kKind == Numbers::kFloat32 ? 4 : 8;

struct alignas(16) Piece {
  std::uint32_t words[4];
};

// 2^23: a small whole number in the low bits of its mantissa is added to it, without a conversion.
constexpr std::uint32_t kWholeBits = 0x4B000000u;
constexpr float kWhole = 8388608.0f;

// Chunk `chunk` of a piece; levels are counted from `zero` on.
template <Numbers kKind>
__device__ inline void unpack(const Piece& piece, int chunk, float zero,
                              float (&out)[kChunk<kKind>]) {
  const float base = kWhole + zero;
#pragma unroll
  for (int i = 0; i < kChunk<kKind>; ++i) {
    if constexpr (kKind == Numbers::kFloat32) {
      out[i] = __uint_as_float(piece.words[i]);
    } else if constexpr (kKind == Numbers::kInt8) {
      const std::uint32_t word = piece.words[2 * chunk + i / 4];
      out[i] = __uint_as_float(((word >> (8 * (i % 4))) & 0xffu) | kWholeBits) - base;
    } else if constexpr (kKind == Numbers::kInt4) {
      out[i] = __uint_as_float(((piece.words[chunk] >> (4 * i)) & 0xfu) | kWholeBits) - base;
    } else {
      const std::uint32_t word = piece.words[i / 2];
      const auto bits = static_cast<std::uint16_t>(i % 2 == 0 ? word & 0xffffu : word >> 16);
      if constexpr (kKind == Numbers::kFloat16) {
        out[i] = half_to_float(bits);
      } else {
        out[i] = __uint_as_float(static_cast<unsigned>(bits) << 16);
      }
    }
  }
}

// Where a level counts from.
__device__ inline float zero_of(const DecodeMatrix& matrix) {
  if (matrix.kind == Numbers::kInt8) return 128.0f;
  return matrix.kind == Numbers::kInt4 && matrix.leasts == nullptr ? 8.0f : 0.0f;
}

// A piece of a row that `whole` says may be read at once, or number by number up to the row's end.
template <Numbers kKind>
__device__ inline Piece piece_at(const DecodeMatrix& matrix, std::int64_t output,
                                 std::int64_t piece, bool whole) {
  const auto* row = static_cast<const std::uint8_t*>(matrix.numbers) + output * matrix.row_bytes;
  if (whole || matrix.scales != nullptr) {
    return *reinterpret_cast<const Piece*>(row + piece * kPieceBytes);
  }
  Piece out{};
  constexpr std::int64_t kNumbers = kPieceNumbers<kKind>;
  for (std::int64_t i = 0; i < kNumbers && piece * kNumbers + i < matrix.inputs; ++i) {
    if constexpr (kKind == Numbers::kFloat32) {
      out.words[i] = reinterpret_cast<const std::uint32_t*>(row)[piece * kNumbers + i];
    } else {
      const std::uint32_t bits = reinterpret_cast<const std::uint16_t*>(row)[piece * kNumbers + i];
      out.words[i / 2] |= bits << (16 * (i % 2));
    }
  }
  return out;
}

// The scale and least number of a piece.
struct PieceScale {
  float scale, least;
};

template <Numbers kKind>
__device__ inline PieceScale scale_at(const DecodeMatrix& matrix, std::int64_t output,
                                      std::int64_t piece) {
  if constexpr (kKind != Numbers::kInt8 && kKind != Numbers::kInt4) return {1.0f, 0.0f};
  const std::int64_t at =
      output * (matrix.inputs / matrix.group) + piece * kPieceNumbers<kKind> / matrix.group;
  return {half_to_float(matrix.scales[at]),
          matrix.leasts != nullptr ? half_to_float(matrix.leasts[at]) : 0.0f};
}

// Calls f(std::integral_constant<Numbers, kind>) for the matrix' kind.
template <class F>
void by_kind(Numbers kind, F f) {
  switch (kind) {
    case Numbers::kFloat32:
      return f.template operator()<Numbers::kFloat32>();
    case Numbers::kFloat16:
      return f.template operator()<Numbers::kFloat16>();
    case Numbers::kBfloat16:
      return f.template operator()<Numbers::kBfloat16>();
    case Numbers::kInt8:
      return f.template operator()<Numbers::kInt8>();
    case Numbers::kInt4:
      return f.template operator()<Numbers::kInt4>();
  }
}

}  // namespace omnima::kernels::cuda
