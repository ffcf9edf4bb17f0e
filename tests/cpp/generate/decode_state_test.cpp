// The key-value cache: what it counts, and that no two heads share memory.
#include "omnima/generate/decode_state.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

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

// What a head remembers of a token, as numbers that no other has.
std::vector<float> mark(std::int64_t layer, std::int64_t head, std::int64_t token, bool value) {
  const auto base = static_cast<float>(((layer * 2 + head) * 200 + token) * 2 + (value ? 1 : 0));
  return {base, base + 0.25f, base + 0.5f, base + 0.75f};
}

void write_all(const DecodeState& state, std::int64_t first, std::int64_t last) {
  for (std::int64_t layer = 0; layer < 3; ++layer) {
    for (std::int64_t head = 0; head < 2; ++head) {
      for (std::int64_t token = first; token < last; ++token) {
        state.write(layer, head, token, mark(layer, head, token, false).data(),
                    mark(layer, head, token, true).data());
      }
    }
  }
}

void expect_all(const DecodeState& state, std::int64_t count) {
  for (std::int64_t layer = 0; layer < 3; ++layer) {
    for (std::int64_t head = 0; head < 2; ++head) {
      for (std::int64_t token = 0; token < count; ++token) {
        std::vector<float> key(4), value(4);
        state.read(layer, head, token, 1, key.data(), value.data());
        ASSERT_EQ(key, mark(layer, head, token, false)) << layer << head << token;
        ASSERT_EQ(value, mark(layer, head, token, true)) << layer << head << token;
      }
    }
  }
}

TEST(DecodeState, EveryHeadHasItsOwnMemoryAndKeepsItThroughTruncation) {
  DecodeState state(config(), 150);
  write_all(state, 0, 150);
  state.advance(150);
  expect_all(state, 150);
  state.truncate(2);
  expect_all(state, 2);
  EXPECT_GE(state.bytes(), 3 * 2 * 150 * 2 * 4 * 4);
}

TEST(DecodeState, BeginsAsAnotherWhosePagesItShares) {
  const PageLayout layout(config(), kernels::CacheFormat::kFloat32);
  PagePool pool(layout.page_bytes());
  auto known = std::make_unique<DecodeState>(layout, 150, pool);
  write_all(*known, 0, 150);
  known->advance(150);
  EXPECT_EQ(pool.in_use(), 5);
  DecodeState state(layout, 190, pool);
  EXPECT_EQ(pool.in_use(), 11);
  state.begin_as(*known, 140);
  EXPECT_EQ(state.position(), 140);
  EXPECT_EQ(pool.in_use(), 7);  // four whole pages are the same
  // What it adds does not reach the other.
  const std::vector<float> other(4, -1.0f);
  state.write(1, 1, 140, other.data(), other.data());
  expect_all(*known, 150);
  expect_all(state, 140);
  known.reset();
  EXPECT_EQ(pool.in_use(), 6);
  expect_all(state, 140);
  DecodeState small(layout, 10, pool);
  EXPECT_NE(error_of([&] { small.begin_as(state, 11); }), "no error");
}

TEST(Pages, HaveALimitAndComeBack) {
  PagePool pool(100, 2);
  EXPECT_EQ(pool.page_bytes(), 128);
  Page first = pool.take();
  const Page second = pool.take();
  EXPECT_NE(first.get(), second.get());
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(first.get()) % 64, 0u);
  EXPECT_NE(error_of([&] { pool.take(); }).find("All 2 pages"), std::string::npos);
  first.reset();
  EXPECT_EQ(pool.in_use(), 1);
  first = pool.take();
  EXPECT_EQ(pool.in_use(), 2);
}

TEST(Pages, MayOutliveTheirPool) {
  auto pool = std::make_unique<PagePool>(64, 3);
  const Page page = pool->take();
  pool.reset();
  page.get()[63] = 7;
  EXPECT_EQ(page.get()[63], 7);
}

}  // namespace
}  // namespace omnima::generate
