// Keys and values in 32, 16 and 8 bits: what is stored is the nearest that the format has, and
// every level computes with what is stored.
#include "omnima/kernels/cpu/cached_heads.h"

#include <gtest/gtest.h>

#include <cstring>

#include "levels.h"

namespace omnima::kernels {
namespace {

constexpr double kUnit = 0x1p-24;  // a float32 rounding, relative

// A head's cache in memory of its own, filled with what no sum may read: NaN, or a level of 127.
class Head {
 public:
  Head(CacheFormat format, std::int64_t dim, std::int64_t tokens)
      : keys_(whole_tiles(tokens) * dim * CachedHead::number_bytes(format), 0x7f),
        values_(whole_tiles(tokens) * whole_tiles(dim) * CachedHead::number_bytes(format), 0x7f),
        key_scales_(whole_tiles(tokens), kNan),
        value_scales_(whole_tiles(tokens), kNan) {
    const bool scaled = format == CacheFormat::kInt8;
    view_ = {format,
             dim,
             keys_.data(),
             values_.data(),
             scaled ? key_scales_.data() : nullptr,
             scaled ? value_scales_.data() : nullptr};
  }

  Head(Head&&) = default;  // a copy would view the other's memory

  const CachedHead& view() const { return view_; }
  float key(std::int64_t token, std::int64_t i) const {
    const std::int64_t tile = token / kCacheTile, lane = token % kCacheTile;
    return number(keys_, (tile * view_.dim + i) * kCacheTile + lane, key_scales_[token]);
  }
  float value(std::int64_t token, std::int64_t i) const {
    return number(values_, token * whole_tiles(view_.dim) + i, value_scales_[token]);
  }
  // Half a step between two numbers of a token.
  float half_step(const std::vector<float>& x) const {
    float most = 0;
    for (const float each : x) most = std::max(most, std::abs(each));
    return most / 254;
  }

 private:
  float number(const std::vector<std::uint8_t>& bytes, std::int64_t at, float scale) const {
    if (view_.format == CacheFormat::kInt8) return static_cast<std::int8_t>(bytes[at]) * scale;
    if (view_.format == CacheFormat::kFloat32) {
      float found;
      std::memcpy(&found, &bytes[4 * at], sizeof(found));
      return found;
    }
    return widened(bfloat16{static_cast<std::uint16_t>(bytes[2 * at] | bytes[2 * at + 1] << 8)});
  }

  std::vector<std::uint8_t> keys_, values_;
  std::vector<float> key_scales_, value_scales_;
  CachedHead view_;
};

std::vector<float> part(const std::vector<float>& all, std::int64_t row, std::int64_t size) {
  return {all.begin() + row * size, all.begin() + (row + 1) * size};
}

struct Case {
  CacheFormat format;
  std::int64_t dim, tokens, rows;
};

class CachedHeads : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    const auto [format, dim, tokens, rows] = GetParam();
    keys_ = draw(tokens * dim, 1);
    values_ = draw(tokens * dim, 2);
    queries_ = draw(rows * dim, 3);
    weights_ = draw(rows * tokens, 4);
  }
  Head written(const CachedHeadKernels& table) const {
    const auto [format, dim, tokens, rows] = GetParam();
    Head head(format, dim, tokens);
    for (std::int64_t i = 0; i < tokens; ++i) {
      table.write(head.view(), i, &keys_[i * dim], &values_[i * dim]);
    }
    return head;
  }
  std::vector<float> keys_, values_, queries_, weights_;
};

TEST_P(CachedHeads, StoreTheNearestNumbers) {
  const auto [format, dim, tokens, rows] = GetParam();
  for (const Level level : levels()) {
    const Head head = written(cached_head_kernels(level));
    for (std::int64_t token = 0; token < tokens; ++token) {
      const float key_step = head.half_step(part(keys_, token, dim));
      const float value_step = head.half_step(part(values_, token, dim));
      for (std::int64_t i = 0; i < dim; ++i) {
        const float key = keys_[token * dim + i], value = values_[token * dim + i];
        // bfloat16 has 8 bits: half of the last is 2^-8 of the number at most.
        const bool bf16 = format == CacheFormat::kBf16;
        if (format == CacheFormat::kFloat32) {
          ASSERT_EQ(head.key(token, i), key) << level_name(level) << ' ' << token;
          ASSERT_EQ(head.value(token, i), value) << level_name(level) << ' ' << token;
          continue;
        }
        const double of_key = bf16 ? 0x1p-8 * std::abs(key) : key_step * (1 + 1024 * kUnit);
        const double of_value = bf16 ? 0x1p-8 * std::abs(value) : value_step * (1 + 1024 * kUnit);
        ASSERT_NEAR(head.key(token, i), key, of_key) << level_name(level) << ' ' << token;
        ASSERT_NEAR(head.value(token, i), value, of_value) << level_name(level) << ' ' << token;
      }
    }
  }
}

TEST_P(CachedHeads, ReadWhatIsStored) {
  const auto [format, dim, tokens, rows] = GetParam();
  const Head head = written(cached_head_kernels());
  for (std::int64_t first = 0; first < tokens; first += kCacheTile) {
    const std::int64_t count = std::min(kCacheTile, tokens - first);
    Guarded<float> keys(count * dim), values(count * dim);
    read_cached(head.view(), first, count, keys.data(), values.data());
    for (std::int64_t i = 0; i < count * dim; ++i) {
      ASSERT_EQ(keys[i], head.key(first + i / dim, i % dim));
      ASSERT_EQ(values[i], head.value(first + i / dim, i % dim));
    }
  }
}

TEST_P(CachedHeads, ScoreWhatIsStored) {
  const auto [format, dim, tokens, rows] = GetParam();
  for (const Level level : levels()) {
    const auto& table = cached_head_kernels(level);
    const Head head = written(table);
    Guarded<float> all(rows * tokens);
    table.scores(head.view(), 0, tokens, queries_.data(), rows, all.data(), tokens);
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t token = 0; token < tokens; ++token) {
        double sum = 0, size = 0;
        for (std::int64_t i = 0; i < dim; ++i) {
          const double term = double{head.key(token, i)} * queries_[row * dim + i];
          sum += term;
          size += std::abs(term);
        }
        ASSERT_NEAR(all[row * tokens + token], sum, static_cast<double>(2 * dim + 3) * kUnit * size)
            << level_name(level) << " row " << row << " token " << token;
      }
    }
    // A part of the tokens has the same scores, each row alone, too.
    for (const std::int64_t begin : {std::int64_t{0}, tokens / 3, tokens - 1}) {
      const std::int64_t end = std::max(begin + 1, tokens - tokens / 5);
      for (std::int64_t row = 0; row < rows; ++row) {
        Guarded<float> some(end - begin);
        table.scores(head.view(), begin, end, &queries_[row * dim], 1, some.data(), end - begin);
        for (std::int64_t i = begin; i < end; ++i) {
          ASSERT_EQ(some[i - begin], all[row * tokens + i]) << level_name(level);
        }
      }
    }
  }
}

TEST_P(CachedHeads, AddWhatIsStored) {
  const auto [format, dim, tokens, rows] = GetParam();
  const std::int64_t width = whole_tiles(dim), begin = tokens / 4, count = tokens - begin;
  for (const Level level : levels()) {
    const auto& table = cached_head_kernels(level);
    const Head head = written(table);
    Guarded<float> sums(std::vector<float>(rows * width, 0.5f), 1);
    std::vector<float> weights = weights_;
    table.add_values(head.view(), begin, tokens, weights.data(), tokens, rows, sums.data());
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t i = 0; i < width; ++i) {
        double sum = 0.5, size = 0.5;
        for (std::int64_t token = 0; i < dim && token < count; ++token) {
          const double term = double{head.value(begin + token, i)} * weights_[row * tokens + token];
          sum += term;
          size += std::abs(term);
        }
        ASSERT_NEAR(sums[row * width + i], sum, static_cast<double>(2 * count + 3) * kUnit * size)
            << level_name(level) << " row " << row << " number " << i;
      }
      std::vector<float> alone(width, 0.5f), own = part(weights_, row, tokens);
      table.add_values(head.view(), begin, tokens, own.data(), tokens, 1, alone.data());
      for (std::int64_t i = 0; i < width; ++i) ASSERT_EQ(alone[i], sums[row * width + i]);
    }
  }
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const CacheFormat format : {CacheFormat::kFloat32, CacheFormat::kBf16, CacheFormat::kInt8}) {
    for (const Case& each :
         {Case{format, 1, 1, 1}, Case{format, 8, 5, 2}, Case{format, 20, 17, 3},
          Case{format, 32, 64, 1}, Case{format, 36, 83, 7}, Case{format, 64, 131, 3},
          Case{format, 80, 47, 4}, Case{format, 128, 96, 5}, Case{format, 256, 33, 9}}) {
      all.push_back(each);
    }
  }
  return all;
}

std::string name_of(const testing::TestParamInfo<Case>& tested) {
  const auto [format, dim, tokens, rows] = tested.param;
  const char* const names[] = {"fp32", "bf16", "int8"};
  return std::string(names[static_cast<int>(format)]) + "_" + std::to_string(dim) + "_" +
         std::to_string(tokens) + "_" + std::to_string(rows);
}

INSTANTIATE_TEST_SUITE_P(Shapes, CachedHeads, testing::ValuesIn(cases()), name_of);

TEST(CachedNumbers, WhatIsNotFiniteReachesTheScoresOfItsTokenAndNoOther) {
  constexpr std::int64_t kDim = 20, kTokens = 18;
  const auto values = draw(kDim, 2), query = draw(kDim, 3);
  for (const CacheFormat format : {CacheFormat::kBf16, CacheFormat::kInt8}) {
    for (const Level level : levels()) {
      for (const float bad : {kNan, kInf, -kInf}) {
        const auto& table = cached_head_kernels(level);
        const Head head(format, kDim, kTokens);
        for (std::int64_t token = 0; token < kTokens; ++token) {
          auto key = draw(kDim, 10 + static_cast<unsigned>(token));
          if (token == 7) key[11] = bad;
          table.write(head.view(), token, key.data(), values.data());
        }
        std::vector<float> scores(kTokens);
        table.scores(head.view(), 0, kTokens, query.data(), 1, scores.data(), kTokens);
        for (std::int64_t i = 0; i < kTokens; ++i) {
          EXPECT_EQ(std::isfinite(scores[i]), i != 7) << level_name(level) << ' ' << i;
        }
      }
    }
  }
}

TEST(CachedNumbers, ATokenOfZerosIsZero) {
  for (const CacheFormat format : {CacheFormat::kBf16, CacheFormat::kInt8}) {
    for (const Level level : levels()) {
      const auto& table = cached_head_kernels(level);
      const Head head(format, 3, 1);
      const float zeros[3] = {0, -0.0f, 0}, query[3] = {1, 2, 3};
      table.write(head.view(), 0, zeros, zeros);
      float score = 5;
      table.scores(head.view(), 0, 1, query, 1, &score, 1);
      EXPECT_EQ(score, 0) << level_name(level);
    }
  }
}

}  // namespace
}  // namespace omnima::kernels
