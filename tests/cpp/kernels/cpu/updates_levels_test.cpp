// The optimizers' passes at every level against plain arithmetic in double.
#include <gtest/gtest.h>

#include "levels.h"
#include "omnima/kernels/cpu/updates.h"

namespace omnima::kernels {
namespace {

using Doubles = std::vector<double>;

// The weights and one or two buffers of state, in plain arithmetic.
struct Plain {
  Doubles w, a, b;

  void sgd(std::size_t i, double g, const SgdConstants& c) {
    g += c.weight_decay * w[i];
    a[i] = c.momentum * a[i] + g;
    w[i] -= c.lr * (c.nesterov ? g + c.momentum * a[i] : a[i]);
  }
  void lion(std::size_t i, double g, const LionConstants& c) {
    const double u = c.beta1 * a[i] + (1 - double{c.beta1}) * g;
    w[i] *= 1 - double{c.lr} * c.weight_decay;
    w[i] -= c.lr * ((u > 0) - (u < 0));
    a[i] = c.beta2 * a[i] + (1 - double{c.beta2}) * g;
  }
  void schedule_free(std::size_t i, double g, const ScheduleFreeConstants& c) {
    b[i] = c.beta2 * b[i] + (1 - double{c.beta2}) * g * g;
    const double u = g / (std::sqrt(b[i]) / c.correction2 + c.eps) + c.weight_decay * w[i];
    const double x = (w[i] - (1 - double{c.beta1}) * a[i]) / c.beta1;  // the average so far
    a[i] -= c.lr * u;
    const double average = (1 - double{c.share}) * x + c.share * a[i];
    w[i] = (1 - double{c.beta1}) * a[i] + c.beta1 * average;
  }
};

template <class Step, class Reference>
void expect_plain(const Step& step, const Reference& reference) {
  for (const std::int64_t count : odd_sizes()) {
    const auto start = draw(count, 1);
    for (const Level level : levels()) {
      SCOPED_TRACE(testing::Message() << level_name(level) << " " << count);
      const std::int64_t offset = count % 9;
      const Doubles wide(start.begin(), start.end());
      Plain plain{wide, wide, Doubles(count)};
      Guarded<float> w(start, offset), a(start, offset), b(count, offset);
      Guarded<bfloat16> shadow(count, offset);
      for (int turn = 1; turn <= 4; ++turn) {
        const auto grad = draw(count, 10 + turn, 0.1f);
        Guarded<float> g(grad, offset);
        step(update_kernels(level), w.data(), g.data(), a.data(), b.data(), shadow.data(), count);
        for (std::int64_t i = 0; i < count; ++i) reference(plain, i, double{grad[i]} * 0.7f);
      }
      for (std::int64_t i = 0; i < count; ++i) {
        ASSERT_NEAR(w[i], plain.w[i], 4e-6 * (1 + std::abs(plain.w[i])));
        ASSERT_NEAR(a[i], plain.a[i], 4e-6 * (1 + std::abs(plain.a[i])));
        ASSERT_NEAR(b[i], plain.b[i], 1e-6 * (1e-4 + std::abs(plain.b[i])));
        ASSERT_NEAR(shadow[i], w[i], std::abs(w[i]) / 256);
      }
    }
  }
}

TEST(UpdateLevels, SgdIsPlainArithmetic) {
  for (const bool nesterov : {false, true}) {
    const SgdConstants c{1e-2f, 0.9f, 0.1f, 0.7f, nesterov};
    expect_plain([&](const UpdateKernels& k, float* w, const float* g, float* a, float*,
                     bfloat16* shadow, std::int64_t count) { k.sgd(w, g, a, shadow, count, c); },
                 [&](Plain& plain, std::int64_t i, double g) { plain.sgd(i, g, c); });
  }
}

TEST(UpdateLevels, LionIsPlainArithmetic) {
  const LionConstants c{1e-2f, 0.9f, 0.99f, 0.1f, 0.7f};
  expect_plain([&](const UpdateKernels& k, float* w, const float* g, float* a, float*,
                   bfloat16* shadow, std::int64_t count) { k.lion(w, g, a, shadow, count, c); },
               [&](Plain& plain, std::int64_t i, double g) { plain.lion(i, g, c); });
}

TEST(UpdateLevels, ScheduleFreeIsPlainArithmetic) {
  const ScheduleFreeConstants c{1e-2f, 0.9f, 0.95f, 1e-8f, 0.1f, 0.2f, 0.7f, 0.25f};
  expect_plain(
      [&](const UpdateKernels& k, float* w, const float* g, float* a, float* b, bfloat16* shadow,
          std::int64_t count) { k.schedule_free(w, g, a, b, shadow, count, c); },
      [&](Plain& plain, std::int64_t i, double g) { plain.schedule_free(i, g, c); });
}

constexpr Adamw8bitConstants kNarrow{1e-3f, 0.9f, 0.95f, 1e-8f, 0.1f, 1.0f, 1.0f, 1.0f, 77};

double mean_of(std::uint8_t code, float scale) {
  const std::uint32_t size = code & 0x7f;
  const double x = size == 0 ? 0.0 : std::bit_cast<float>((size + 889u) << 20);
  return (code & 0x80 ? -x : x) * scale;
}

// What is stored lies within one unit of the exact moments, and is right on average.
TEST(UpdateLevels, EightBitMomentsAreRoundedToANeighbourAndRightOnAverage) {
  constexpr std::int64_t count = 256 * 40 + 19, blocks = 41;
  const auto grad = draw(count, 3);
  for (const Level level : levels()) {
    std::vector<float> w = draw(count, 4), mean_scale(blocks), root_scale(blocks);
    std::vector<std::uint8_t> mean(count), root(count);
    std::vector<bfloat16> shadow(count);
    const auto before = w;
    update_kernels(level).adamw_8bit(
        w.data(), grad.data(), {mean.data(), root.data(), mean_scale.data(), root_scale.data()},
        shadow.data(), count, 0, kNarrow);
    double bias = 0, total = 0;
    for (std::int64_t i = 0; i < count; ++i) {
      const double m = 0.1f * grad[i], v = 0.05f * grad[i] * grad[i];
      const double stored = mean_of(mean[i], mean_scale[i / 256]);
      const double high = std::bit_cast<float>((root[i] + 1777u) << 19) * root_scale[i / 256];
      ASSERT_NEAR(stored, m, std::abs(m) / 8 + 3e-5 * mean_scale[i / 256]) << level_name(level);
      ASSERT_NEAR(high, std::sqrt(v), std::sqrt(v) / 16 + 3e-5 * root_scale[i / 256]);
      ASSERT_NEAR(w[i], before[i] * (1 - 1e-4) - 1e-3 * m / (std::sqrt(v) + 1e-8), 2e-6);
      ASSERT_NEAR(widened(shadow[i]), w[i], std::abs(w[i]) / 256);
      bias += std::abs(stored) - std::abs(m);
      total += std::abs(m);
    }
    EXPECT_LE(std::abs(bias), 2e-3 * total) << level_name(level);
  }
}

TEST(UpdateLevels, EightBitBlocksOfZerosStayZeroAndLevelsAgree) {
  constexpr std::int64_t count = 600;
  std::vector<float> first;
  for (const Level level : levels()) {
    std::vector<float> w = draw(count, 4), mean_scale(3), root_scale(3);
    std::vector<std::uint8_t> mean(count), root(count);
    for (int turn = 0; turn < 5; ++turn) {
      auto grad = draw(count, 20 + turn);
      std::fill_n(grad.begin() + 256, 256, 0.0f);
      Adamw8bitConstants c = kNarrow;
      c.noise = static_cast<std::uint32_t>(turn);
      update_kernels(level).adamw_8bit(
          w.data(), grad.data(), {mean.data(), root.data(), mean_scale.data(), root_scale.data()},
          nullptr, count, 1000, c);
    }
    EXPECT_EQ(mean_scale[1], 0.0f);
    EXPECT_EQ(root_scale[1], 0.0f);
    if (first.empty()) first = w;
    double apart = 0;
    for (std::int64_t i = 0; i < count; ++i) {
      ASSERT_TRUE(std::isfinite(w[i]));
      apart += std::abs(w[i] - first[i]);
    }
    EXPECT_LE(apart / count, 1e-6) << level_name(level);
  }
}

}  // namespace
}  // namespace omnima::kernels
