// Products of packed weights with activations in 8 bits: the same at every level, bit for bit, and
// those of the format's numbers with the rounded activations.
#include "omnima/quant/packed.h"

#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "../kernels/cpu/levels.h"

namespace omnima::quant {
namespace {

using kernels::ByteRows;
using kernels::draw;
using kernels::kPieceInputs;
using kernels::Level;

// Activations in 8 bits, in memory of their own.
struct Bytes {
  std::int64_t pieces;
  std::vector<std::int8_t> levels;
  std::vector<float> scales;
  std::vector<std::int32_t> totals;

  Bytes(const std::vector<float>& x, std::int64_t rows, std::int64_t inputs, std::int64_t stride,
        Level level = Level::kGeneric)
      : pieces((inputs + kPieceInputs - 1) / kPieceInputs),
        levels(rows * pieces * kPieceInputs),
        scales(rows * pieces),
        totals(2 * rows * pieces) {
    kernels::quantize_rows(x.data(), stride, rows, inputs, view(), level);
  }
  ByteRows view() { return {levels.data(), scales.data(), totals.data()}; }
  double number(std::int64_t row, std::int64_t i) const {
    return double{scales[row * pieces + i / kPieceInputs]} *
           levels[row * pieces * kPieceInputs + i];
  }
};

at::Tensor random_blocks(const Format& format, std::int64_t count, unsigned seed) {
  std::mt19937 engine(seed);
  at::Tensor bytes = at::empty({count * format.bytes}, at::kByte);
  auto* data = bytes.mutable_data_ptr<std::uint8_t>();
  // No 16 bits of these are NaN or infinity, or a half that is too large to compare sums.
  for (std::int64_t i = 0; i < bytes.numel(); ++i) {
    data[i] = static_cast<std::uint8_t>(engine() & 0xbb);
  }
  return bytes;
}

// Formats and widths: one piece, several, several groups, and a row that ends within a piece.
struct Case {
  std::string format;
  std::vector<std::int64_t> widths;
};

std::shared_ptr<const PackedMatrix> packed(const Matrix& matrix) {
  PackedMemory memory;
  return quant::packed(matrix, memory);
}

class PackedProducts : public testing::TestWithParam<Case> {};

TEST_P(PackedProducts, AreTheSameAtEveryLevelAndThoseOfTheNumbers) {
  const Format& format = format_named(GetParam().format);
  for (const std::int64_t inputs : GetParam().widths) {
    for (const std::int64_t outputs : {1, 16, 37, 107}) {
      const auto blocks = random_blocks(format, outputs * inputs / format.numbers, 1);
      const Matrix matrix = matrix_of(format, blocks, outputs, inputs);
      const auto packing = packed(matrix);
      ASSERT_NE(packing, nullptr);
      const at::Tensor numbers = dequantized_rows(matrix, 0, outputs);
      const float* weight = numbers.const_data_ptr<float>();
      for (const std::int64_t rows : {1, 2, 3, 4, 7, 8, 16, 27}) {
        const std::int64_t stride = inputs + 3;
        const auto x = draw(rows * stride, 2), bias = draw(outputs, 3);
        Bytes bytes(x, rows, inputs, stride);
        std::vector<float> plain;
        for (const Level level : kernels::levels()) {
          SCOPED_TRACE(testing::Message() << kernels::level_name(level) << ' ' << outputs << 'x'
                                          << inputs << ", " << rows << " rows");
          kernels::Guarded<float> y(rows * outputs);
          const kernels::PackedGemv product{packing->layout, bias.data(), bytes.view(), rows,
                                            y.data(),        outputs};
          // In ranges that begin and end within a tile: none depends on the others.
          const std::int64_t half = outputs / 2;
          kernels::packed_gemv(product, 0, half, level);
          kernels::packed_gemv(product, half, outputs, level);
          if (plain.empty()) {
            for (std::int64_t i = 0; i < rows * outputs; ++i) {
              plain.push_back(y[i]);
              const std::int64_t row = i / outputs, o = i % outputs;
              double sum = bias[o], size = std::abs(bias[o]);
              for (std::int64_t k = 0; k < inputs; ++k) {
                const double term = bytes.number(row, k) * weight[o * inputs + k];
                sum += term;
                // What a level adds before its least number takes it away counts, too.
                size += std::abs(bytes.number(row, k)) * (std::abs(weight[o * inputs + k]) + 1e3);
              }
              ASSERT_NEAR(y[i], sum, 1e-6 * size) << i;
            }
          } else {
            for (std::int64_t i = 0; i < rows * outputs; ++i) ASSERT_EQ(y[i], plain[i]) << i;
          }
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, PackedProducts,
                         testing::Values(Case{"q8_0", {32, 96, 576}}, Case{"q4_0", {32, 96, 576}},
                                         Case{"q4_1", {32, 96, 576}}, Case{"q5_0", {32, 160}},
                                         Case{"q5_1", {32, 160}}, Case{"int8_g64", {64, 192}},
                                         Case{"int8_g128", {256}}, Case{"int8_g576", {576, 1152}},
                                         Case{"int8_g45", {45}}, Case{"int8_g7", {7}},
                                         Case{"int4_g64", {64, 192}}, Case{"int4_g128", {256}},
                                         Case{"int4z_g64", {64, 192}}, Case{"int4z_g128", {256}},
                                         Case{"q2_k", {256, 768}}, Case{"q3_k", {256, 768}},
                                         Case{"q4_k", {256, 768}}, Case{"q5_k", {256, 768}},
                                         Case{"q6_k", {256, 768}}),
                         [](const auto& tested) { return tested.param.format; });

TEST(PackedProducts, WithSmallNumbersAreCloseToThoseInFloat32) {
  const std::int64_t inputs = 640, outputs = 48;
  const auto weight = draw(outputs * inputs, 1, 0.02f), x = draw(inputs, 2);
  const at::Tensor numbers = at::empty({outputs, inputs}, at::kFloat);
  std::copy(weight.begin(), weight.end(), numbers.mutable_data_ptr<float>());
  const Format& format = format_named("int8_g64");
  const std::int64_t count = outputs * inputs / format.numbers;
  at::Tensor blocks = at::empty({count * format.bytes}, at::kByte);
  format.quantize(weight.data(), count, blocks.mutable_data_ptr<std::uint8_t>());
  const auto packing = packed(matrix_of(format, blocks, outputs, inputs));
  Bytes bytes(x, 1, inputs, inputs);
  std::vector<float> y(outputs);
  kernels::packed_gemv({packing->layout, nullptr, bytes.view(), 1, y.data(), outputs}, 0, outputs);
  for (std::int64_t o = 0; o < outputs; ++o) {
    double sum = 0;
    for (std::int64_t k = 0; k < inputs; ++k) sum += double{weight[o * inputs + k]} * x[k];
    EXPECT_NEAR(y[o], sum, 0.02) << o;  // of sums around 0.5
  }
}

TEST(PackedMatrix, TakesNoFormatWhoseGroupsAreNotWholePieces) {
  for (const std::string name : {"int8_g48", "f32", "bf16", "nf4_g64x4"}) {
    const Format& format = format_named(name);
    const std::int64_t inputs = 4 * format.numbers;
    const auto blocks = random_blocks(format, 3 * 4, 1);
    EXPECT_EQ(packed(matrix_of(format, blocks, 3, inputs)), nullptr) << name;
  }
}

TEST(PackedMemory, GivesLinesOneBehindTheOtherThatOutliveIt) {
  std::vector<PackedMemory::Part> parts;
  {
    PackedMemory memory;
    for (const std::int64_t bytes : {1, 64, 100, 40 << 20, 7}) {
      parts.push_back(memory.take(bytes));
      std::fill_n(parts.back().data, bytes, static_cast<std::uint8_t>(parts.size()));
    }
  }
  EXPECT_EQ(parts[1].data, parts[0].data + 64);
  EXPECT_EQ(parts[2].data, parts[1].data + 64);
  EXPECT_EQ(parts[2].owner, parts[0].owner);
  EXPECT_NE(parts[3].owner, parts[0].owner);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(parts[i].data) % 64, 0u);
    EXPECT_EQ(*parts[i].data, i + 1);
  }
}

TEST(ByteRows, AreTheSameAtEveryLevel) {
  for (const std::int64_t inputs : kernels::odd_sizes()) {
    auto x = draw(3 * inputs, 4, 5.0f);
    x[0] = 0.5f;
    const Bytes plain(x, 3, inputs, inputs);
    for (const Level level : kernels::levels()) {
      const Bytes here(x, 3, inputs, inputs, level);
      EXPECT_EQ(here.levels, plain.levels) << kernels::level_name(level) << ' ' << inputs;
      EXPECT_EQ(here.scales, plain.scales);
      EXPECT_EQ(here.totals, plain.totals);
    }
  }
}

TEST(ByteRows, AreTheNearestOf255Levels) {
  const auto x = draw(96, 5);
  const Bytes bytes(x, 1, 96, 96);
  for (std::int64_t i = 0; i < 96; ++i) {
    EXPECT_NEAR(bytes.number(0, i), x[i], 0.501 * bytes.scales[i / 32]) << i;
    EXPECT_LE(std::abs(bytes.levels[i]), 127);
  }
  for (std::int64_t piece = 0; piece < 3; ++piece) {
    for (std::int64_t half = 0; half < 2; ++half) {
      std::int32_t total = 0;
      for (std::int64_t i = 0; i < 16; ++i) total += bytes.levels[piece * 32 + half * 16 + i];
      EXPECT_EQ(bytes.totals[2 * piece + half], total);
    }
  }
}

TEST(ByteRows, OfNothingAreZeroAndOfDamageAreNan) {
  std::vector<float> x(96, 0.0f);
  x[32] = 1e-38f;
  for (const float damaged : {kernels::kNan, kernels::kInf, -kernels::kInf}) {
    x[70] = damaged;
    for (const Level level : kernels::levels()) {
      const Bytes bytes(x, 1, 96, 96, level);
      EXPECT_EQ(bytes.scales[0], 0.0f);
      EXPECT_EQ(bytes.scales[1], 0.0f);
      EXPECT_TRUE(std::isnan(bytes.scales[2])) << kernels::level_name(level);
    }
  }
}

}  // namespace
}  // namespace omnima::quant
