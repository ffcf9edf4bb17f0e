// Products of bfloat16 at every level, against sums in double: odd shapes, parts of the outputs,
// and rows that are the same alone and beside others.
#include "omnima/kernels/cpu/half_gemv.h"

#include <gtest/gtest.h>

#include "levels.h"

namespace omnima::kernels {
namespace {

struct Case {
  std::int64_t rows, inputs, outputs;
};

struct Product {
  explicit Product(const Case& c)
      : shape(c),
        x(draw(c.rows * c.inputs, 1)),
        weight(draw<bfloat16>(c.outputs * c.inputs, 2)),
        bias(draw(c.outputs, 3)) {}

  // Rows first..last, outputs begin..end into y, which has all.
  void run(Level level, std::int64_t first, std::int64_t last, std::int64_t begin, std::int64_t end,
           float* y) const {
    const std::int64_t rows = last - first, bytes = half_rows_bytes(rows, shape.inputs, level);
    // Nothing may depend on what the memory held.
    std::vector<float> packed(static_cast<std::size_t>(bytes + 64) / sizeof(float) + 16, kNan);
    auto* memory = reinterpret_cast<char*>(packed.data());
    memory += (64 - reinterpret_cast<std::uintptr_t>(memory) % 64) % 64;
    const float* from = x.data() + first * shape.inputs;
    pack_half_rows(from, 0, rows / 2, shape.inputs, memory, level);
    pack_half_rows(from, rows / 2, rows, shape.inputs, memory, level);
    half_gemv({weight.data(), bias.data(), shape.inputs, memory, rows, y, shape.outputs}, begin,
              end, level);
  }

  Case shape;
  std::vector<float> x;
  std::vector<bfloat16> weight;
  std::vector<float> bias;
};

class HalfGemvLevels : public testing::TestWithParam<Case> {};

TEST_P(HalfGemvLevels, EqualsPlainSums) {
  const Product p(GetParam());
  const auto [rows, inputs, outputs] = p.shape;
  for (const Level level : levels()) {
    SCOPED_TRACE(level_name(level));
    Guarded<float> y(rows * outputs);
    const std::int64_t middle = outputs / 3;
    p.run(level, 0, rows, 0, middle, y.data());
    p.run(level, 0, rows, middle, outputs, y.data());
    for (std::int64_t i = 0; i < rows * outputs; ++i) {
      double exact = p.bias[i % outputs];
      for (std::int64_t k = 0; k < inputs; ++k) {
        const float rounded = widened(as<bfloat16>(p.x[i / outputs * inputs + k]));
        exact += double(rounded) * widened(p.weight[i % outputs * inputs + k]);
      }
      ASSERT_NEAR(y[i], exact, allowed<float>(exact, 2 * std::sqrt(double(inputs)) + 1)) << i;
    }
  }
}

TEST_P(HalfGemvLevels, ARowIsTheSameAloneAndAnOutputInAnyPart) {
  const Product p(GetParam());
  const auto [rows, inputs, outputs] = p.shape;
  for (const Level level : levels()) {
    std::vector<float> all(rows * outputs), parts(rows * outputs);
    p.run(level, 0, rows, 0, outputs, all.data());
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t o = 0; o < outputs; o += 17) {
        p.run(level, row, row + 1, o, std::min(outputs, o + 17), &parts[row * outputs]);
      }
    }
    EXPECT_EQ(all, parts) << level_name(level);
  }
}

TEST(HalfGemvNumbers, WhatIsNotFiniteStaysInItsRowAndOutput) {
  Product p({20, 37, 40});
  p.x[3 * 37 + 36] = kNan;
  p.weight[7 * 37 + 36] = as<bfloat16>(kInf);
  for (const Level level : levels()) {
    std::vector<float> y(20 * 40);
    p.run(level, 0, 20, 0, 40, y.data());
    for (std::int64_t i = 0; i < 20 * 40; ++i) {
      EXPECT_EQ(std::isfinite(y[i]), i / 40 != 3 && i % 40 != 7) << level_name(level) << " " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(OddSizes, HalfGemvLevels,
                         testing::Values(Case{1, 1, 1}, Case{1, 31, 15}, Case{2, 32, 16},
                                         Case{3, 33, 17}, Case{5, 64, 33}, Case{16, 576, 192},
                                         Case{17, 100, 47}, Case{33, 70, 65}, Case{8, 1536, 31}));

}  // namespace
}  // namespace omnima::kernels
