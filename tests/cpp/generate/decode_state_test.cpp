// The key-value cache: what it counts, and that no two heads share memory.
#include "omnima/generate/decode_state.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <string>

#include "omnima/core/error.h"

namespace omnima::generate {
namespace {

models::DecoderConfig config() {
  models::DecoderConfig config;
  config.num_hidden_layers = 3;
  config.num_key_value_heads = 2;
  config.head_dim = 4;
  return config;
}

std::string error_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const core::Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(DecodeState, CountsWhatIsAppendedAndForgotten) {
  DecodeState state(config(), 10);
  EXPECT_EQ(state.position(), 0);
  EXPECT_EQ(state.capacity(), 10);
  EXPECT_GE(state.stride(), 10);
  state.advance(7);
  state.advance(0);
  EXPECT_EQ(state.position(), 7);
  state.truncate(7);
  EXPECT_EQ(state.position(), 7);
  state.truncate(3);
  EXPECT_EQ(state.position(), 3);
  state.advance(7);
  EXPECT_EQ(state.position(), 10);
  state.reset();
  EXPECT_EQ(state.position(), 0);
}

TEST(DecodeState, RefusesMoreThanItHoldsAndStaysAsItWas) {
  DecodeState state(config(), 10);
  state.advance(8);
  const std::string error = error_of([&] { state.advance(3); });
  EXPECT_NE(error.find("for 10 tokens holds 8 and was given 3 more"), std::string::npos) << error;
  EXPECT_NE(error_of([&] { state.advance(-1); }), "no error");
  EXPECT_EQ(state.position(), 8);
}

TEST(DecodeState, RefusesToBeCutToWhereItNeverWas) {
  DecodeState state(config(), 10);
  state.advance(4);
  const std::string error = error_of([&] { state.truncate(5); });
  EXPECT_NE(error.find("4 tokens cannot be cut to 5"), std::string::npos) << error;
  EXPECT_NE(error_of([&] { state.truncate(-1); }), "no error");
  EXPECT_EQ(state.position(), 4);
}

TEST(DecodeState, EveryHeadHasItsOwnMemoryAndKeepsItThroughTruncation) {
  const auto shape = config();
  DecodeState state(shape, 10);
  const auto keys = state.capacity() * shape.head_dim;
  const auto values = state.stride() * shape.head_dim;
  float mark = 0;
  for (std::int64_t layer = 0; layer < 3; ++layer) {
    for (std::int64_t head = 0; head < 2; ++head) {
      std::fill_n(state.keys(layer, head), keys, ++mark);
      std::fill_n(state.values(layer, head), values, ++mark);
    }
  }
  state.advance(10);
  state.truncate(2);
  mark = 0;
  for (std::int64_t layer = 0; layer < 3; ++layer) {
    for (std::int64_t head = 0; head < 2; ++head) {
      const float* k = state.keys(layer, head);
      const float* v = state.values(layer, head);
      ++mark;
      EXPECT_TRUE(std::all_of(k, k + keys, [&](float x) { return x == mark; }));
      ++mark;
      EXPECT_TRUE(std::all_of(v, v + values, [&](float x) { return x == mark; }));
    }
  }
}

}  // namespace
}  // namespace omnima::generate
