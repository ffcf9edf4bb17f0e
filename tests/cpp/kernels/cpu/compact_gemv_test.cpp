// Weights in 12 bits a number at every level: every bit comes back, and products are those of the
// plain numbers, bit for bit.
#include "omnima/kernels/cpu/compact_gemv.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>

#include "levels.h"
#include "omnima/kernels/cpu/block_gemv.h"

namespace omnima::kernels {
namespace {

struct Packing {
  Packing(const std::vector<bfloat16>& weight, std::int64_t outputs, std::int64_t inputs,
          Level level) {
    layout.outputs = outputs;
    layout.inputs = inputs;
    choose_highs(weight.data(), outputs, inputs, layout.highs);
    bytes = std::make_unique<Guarded<float>>(layout.bytes() / 4);
    layout.data = reinterpret_cast<std::uint8_t*>(bytes->data());
    const std::int64_t most = kCompactOutputs * inputs;
    exceptions.resize(static_cast<std::size_t>(layout.tile_count() * most));
    tiles.push_back(0);
    for (std::int64_t tile = 0; tile < layout.tile_count(); ++tile) {
      CompactException* to = exceptions.data() + tiles.back();
      tiles.push_back(tiles.back() + static_cast<std::uint32_t>(pack_compact_tile(
                                         weight.data(), layout, tile, to, most, level)));
    }
    exceptions.resize(tiles.back());
    layout.exceptions = exceptions.data();
    layout.tiles = tiles.data();
  }

  std::vector<bfloat16> unpacked() const {
    std::vector<bfloat16> all(static_cast<std::size_t>(layout.outputs * layout.inputs));
    for (std::int64_t o = 0; o < layout.outputs; ++o) {
      unpack_compact_row(layout, o, all.data() + o * layout.inputs);
    }
    return all;
  }

  Compact layout;
  std::unique_ptr<Guarded<float>> bytes;
  std::vector<CompactException> exceptions;
  std::vector<std::uint32_t> tiles;
};

bool same_bits(const std::vector<bfloat16>& a, const std::vector<bfloat16>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(bfloat16)) == 0;
}

const std::vector<std::pair<std::int64_t, std::int64_t>>& shapes() {  // outputs, inputs
  static const std::vector<std::pair<std::int64_t, std::int64_t>> all{
      {1, 1},   {2, 15},  {3, 63},   {5, 64},   {6, 65},   {7, 127},  {4, 128}, {9, 129},
      {8, 192}, {5, 193}, {11, 320}, {13, 577}, {21, 576}, {3, 1024}, {2, 4099}};
  return all;
}

TEST(CompactGemv, EveryBitComesBackAtEveryLevel) {
  std::mt19937 engine(7);
  for (const auto& [outputs, inputs] : shapes()) {
    const auto count = static_cast<std::size_t>(outputs * inputs);
    std::vector<bfloat16> any(count), zeros(count), few = draw<bfloat16>(count, 3, 0.02f);
    for (bfloat16& x : any) x.bits = static_cast<std::uint16_t>(engine());
    // -0, the least and the largest denormal, infinities, NaNs with their bits, the largest.
    const std::uint16_t odd[] = {0x8000, 0x0001, 0x807f, 0x7f80, 0xff80, 0x7fc1, 0xffff, 0x7f7f};
    for (std::size_t i = 0; i < count; i += 37) few[i].bits = odd[i % std::size(odd)];
    for (const Level level : levels()) {
      for (const auto* weight : {&any, &zeros, &few}) {
        EXPECT_TRUE(same_bits(Packing(*weight, outputs, inputs, level).unpacked(), *weight))
            << level_name(level) << " " << outputs << " x " << inputs;
      }
    }
  }
}

TEST(CompactGemv, TrainedWeightsHaveFewExceptions) {
  const auto weight = draw<bfloat16>(64 * 576, 1, 0.02f);
  const Packing packed(weight, 64, 576, active_level());
  EXPECT_LT(packed.exceptions.size(), weight.size() / 2000);
  EXPECT_EQ(packed.layout.bytes(), 64 * 576 * 3 / 2);
}

TEST(CompactGemv, ProductsAreThoseOfPlainNumbersToTheBit) {
  const Blocks plain{
      BlockLayout::kBf16, 1, 2, [](const std::uint8_t* from, std::int64_t count, float* out) {
        const auto* numbers = reinterpret_cast<const bfloat16*>(from);
        std::transform(numbers, numbers + count, out, [](bfloat16 x) { return widened(x); });
      }};
  for (const auto& [outputs, inputs] : shapes()) {
    auto weight = draw<bfloat16>(static_cast<std::size_t>(outputs * inputs), 5);
    // Exceptions in first, middle and last places: far too small, and of a size of their own.
    for (std::size_t i = 0; i < weight.size(); i += 97) weight[i].bits = 0x0123;
    weight.back().bits = 0x5f00;
    const auto bias = draw(static_cast<std::size_t>(outputs), 6);
    for (const Level level : levels()) {
      const Packing packed(weight, outputs, inputs, level);
      for (const std::int64_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 16, 21}) {
        SCOPED_TRACE(testing::Message() << level_name(level) << " " << outputs << " x " << inputs
                                        << " of " << rows << " rows");
        const std::int64_t stride = inputs + 3;  // what lies between rows is never read
        std::vector<float> x(static_cast<std::size_t>((rows - 1) * stride + inputs), kNan);
        for (std::int64_t row = 0; row < rows; ++row) {
          const auto own = draw(static_cast<std::size_t>(inputs), 10 + static_cast<unsigned>(row));
          std::copy(own.begin(), own.end(), x.begin() + row * stride);
        }
        std::vector<float> expected(static_cast<std::size_t>(rows * outputs));
        block_gemv({plain, reinterpret_cast<const std::uint8_t*>(weight.data()), bias.data(),
                    inputs, x.data(), stride, rows, expected.data(), outputs},
                   0, outputs, level);
        Guarded<float> y(rows * outputs);
        const CompactGemv product{packed.layout, bias.data(), inputs,   x.data(),
                                  stride,        rows,        y.data(), outputs};
        const std::int64_t middle = outputs / 3;
        compact_gemv(product, 0, middle, level);
        compact_gemv(product, middle, outputs, level);
        ASSERT_EQ(std::memcmp(y.data(), expected.data(), expected.size() * sizeof(float)), 0);
      }
    }
  }
}

TEST(CompactGemv, WhatIsNotFiniteStaysInItsOutput) {
  auto weight = draw<bfloat16>(8 * 200, 2);
  weight[3 * 200 + 199] = as<bfloat16>(kInf);
  weight[5 * 200] = as<bfloat16>(kNan);
  const auto x = draw(200, 4);
  for (const Level level : levels()) {
    const Packing packed(weight, 8, 200, level);
    std::vector<float> y(8);
    compact_gemv({packed.layout, nullptr, 200, x.data(), 200, 1, y.data(), 8}, 0, 8, level);
    for (std::size_t i = 0; i < y.size(); ++i) {
      EXPECT_EQ(std::isfinite(y[i]), i != 3 && i != 5) << level_name(level) << " " << i;
    }
  }
}

TEST(CompactGemv, ATileWithoutRoomForItsExceptionsSaysHowManyThereAre) {
  std::vector<bfloat16> weight(4 * 64);
  for (std::size_t i = 0; i < weight.size(); ++i) {
    weight[i].bits = static_cast<std::uint16_t>(i << 8);
  }
  for (const Level level : levels()) {
    const Packing packed(weight, 4, 64, level);
    const std::size_t all = weight.size() - kCompactHighs;
    EXPECT_EQ(packed.exceptions.size(), all);
    CompactException few[10];
    EXPECT_EQ(pack_compact_tile(weight.data(), packed.layout, 0, few, 10, level), all);
  }
}

}  // namespace
}  // namespace omnima::kernels
