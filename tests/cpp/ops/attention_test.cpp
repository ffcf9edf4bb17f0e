// Attention against its plain meaning: grouped heads, packed documents, rotary turns.
#include "omnima/ops/attention.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include "omnima/ops/reference.h"
#include "ops_fixture.h"

namespace omnima::ops {
namespace {

struct Case {
  int64_t batch, time;
  AttentionShape shape;
};

at::Tensor qkv_of(const Case& c) {
  return drawn({c.batch, c.time, (c.shape.heads + 2 * c.shape.kv_heads) * c.shape.head_dim}, 1);
}

// Documents end at other places in every row.
Positions positions_of(const Case& c, bool packed, bool rotary) {
  Positions positions;
  if (rotary) {
    const at::Tensor angle =
        at::outer(at::arange(c.time + 3, at::kFloat), drawn({c.shape.head_dim / 2}, 2));
    positions.cos = angle.cos();
    positions.sin = angle.sin();
  }
  if (packed) {
    positions.ids = at::zeros({c.batch, c.time}, at::kLong);
    auto* place = positions.ids.data_ptr<int64_t>();
    for (int64_t row = 0; row < c.batch; ++row) {
      for (int64_t i = 0; i < c.time; ++i) place[row * c.time + i] = i % (c.time / (row + 2) + 1);
    }
  }
  return positions;
}

class AttentionOperator : public ::testing::TestWithParam<Case> {};

TEST_P(AttentionOperator, EqualsTheReference) {
  const Case& c = GetParam();
  for (const bool packed : {false, true}) {
    for (const bool rotary : {false, true}) {
      const Positions positions = positions_of(c, packed, rotary);
      SCOPED_TRACE(std::string(packed ? "packed " : "") + (rotary ? "rotary" : ""));
      expect_reference(
          [&](const Tensors& x) { return attention(x[0], c.shape, positions); },
          [&](const Tensors& x) { return reference::attention(x[0], c.shape, positions); },
          {qkv_of(c)});
    }
  }
}

TEST_P(AttentionOperator, TakesItsValuesByTheWeights) {
  const Case& c = GetParam();
  AttentionOptions windowed;
  windowed.window = 3;
  windowed.softcap = 2.0;
  windowed.slopes = alibi_slopes(c.shape.heads);
  for (const AttentionOptions& options : {AttentionOptions{}, windowed}) {
    for (const bool packed : {false, true}) {
      const Positions positions = positions_of(c, packed, true);
      const at::Tensor qkv = qkv_of(c);
      const at::Tensor weights = reference::attention_weights(qkv, c.shape, positions, options);
      ASSERT_EQ(weights.sizes().vec(),
                (std::vector<int64_t>{c.batch, c.shape.heads, c.time, c.time}));
      EXPECT_TRUE(weights.sum(-1).allclose(at::ones({c.batch, c.shape.heads, c.time})));
      const int64_t values = c.shape.kv_heads * c.shape.head_dim;
      const at::Tensor v = qkv.narrow(-1, qkv.size(-1) - values, values)
                               .view({c.batch, c.time, c.shape.kv_heads, c.shape.head_dim})
                               .transpose(1, 2)
                               .repeat_interleave(c.shape.heads / c.shape.kv_heads, 1);
      const at::Tensor taken =
          at::matmul(weights, v).transpose(1, 2).reshape({c.batch, c.time, -1});
      EXPECT_TRUE(taken.allclose(attention(qkv, c.shape, positions, options), 1e-4, 1e-5));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(OddSizes, AttentionOperator,
                         ::testing::Values(Case{1, 1, {1, 1, 2}}, Case{3, 17, {4, 4, 8}},
                                           Case{2, 65, {6, 2, 20}}, Case{2, 130, {4, 1, 24}},
                                           Case{5, 33, {3, 3, 64}}));

std::vector<AttentionOptions> options_of(const Case& c) {
  const at::Tensor slopes = alibi_slopes(c.shape.heads);
  return {{1},
          {7},
          {50},
          {0, 1.5},
          {0, 0, slopes},
          {0, 0, {}, 0.3, 42},
          {9, 2.5, slopes, 0.2, (uint64_t{5} << 40) + 3}};
}

TEST_P(AttentionOperator, EqualsTheReferenceWithEveryOption) {
  const Case& c = GetParam();
  for (const bool packed : {false, true}) {
    const Positions positions = positions_of(c, packed, true);
    for (const AttentionOptions& options : options_of(c)) {
      SCOPED_TRACE(::testing::Message() << packed << " window " << options.window << " cap "
                                        << options.softcap << " dropout " << options.dropout);
      expect_reference(
          [&](const Tensors& x) { return attention(x[0], c.shape, positions, options); },
          [&](const Tensors& x) { return reference::attention(x[0], c.shape, positions, options); },
          {qkv_of(c)});
    }
  }
}

// Beside the softmax over an explicit mask; the gradient is that of plain ATen.
TEST(BothSides, ATokenSeesItsWholeDocumentAndAsManyToEitherSide) {
  const int64_t time = 9, dim = 4;
  const at::Tensor qkv = drawn({2, time, 3 * dim}, 3).to(at::kFloat);
  for (const int64_t window : {0, 3}) {
    for (const bool packed : {false, true}) {
      AttentionOptions options{window};
      options.causal = false;
      Positions positions;
      if (packed) positions.ids = at::arange(time).remainder(5).expand({2, time}).contiguous();
      const at::Tensor got = attention(qkv, {1, 1, dim}, positions, options);
      const at::Tensor place = at::arange(time), far = (place.unsqueeze(1) - place).abs();
      at::Tensor seen = far.lt(window > 0 ? window : time);
      if (packed) {
        const at::Tensor document = place.div(5, "floor");
        seen = seen.logical_and(document.unsqueeze(1).eq(document));
      }
      const at::Tensor q = qkv.narrow(2, 0, dim), k = qkv.narrow(2, dim, dim),
                       v = qkv.narrow(2, 2 * dim, dim);
      const at::Tensor scores = at::matmul(q, k.transpose(1, 2)).div(2.0);
      const at::Tensor wanted =
          at::matmul(scores.masked_fill(seen.logical_not(), -INFINITY).softmax(-1), v);
      EXPECT_LT((got - wanted).abs().max().item<float>(), 1e-5) << window << packed;
    }
  }
  AttentionOptions with_slopes;
  with_slopes.causal = false;
  with_slopes.slopes = alibi_slopes(1);
  EXPECT_THROW(attention(qkv, {1, 1, dim}, {}, with_slopes), core::Error);
}

TEST_P(AttentionOperator, LearnsABiasByDistance) {
  const Case& c = GetParam();
  const Tensors inputs{qkv_of(c), drawn({c.shape.heads, c.time + 2}, 4)};
  for (const bool packed : {false, true}) {
    const Positions positions = positions_of(c, packed, true);
    for (const AttentionOptions& given : {AttentionOptions{}, options_of(c).back()}) {
      const auto with_bias = [&](const at::Tensor& bias) {
        AttentionOptions options = given;
        options.bias = bias.to(at::kFloat);
        return options;
      };
      expect_reference(
          [&](const Tensors& x) { return attention(x[0], c.shape, positions, with_bias(x[1])); },
          [&](const Tensors& x) {
            return reference::attention(x[0], c.shape, positions, with_bias(x[1]));
          },
          inputs, 2e-5);
    }
  }
}

AttentionOptions by_blocks(const core::BlockPattern& pattern) {
  AttentionOptions options;
  options.blocks = pattern;
  return options;
}

TEST_P(AttentionOperator, EqualsTheReferenceByBlocks) {
  const Case& c = GetParam();
  for (const core::BlockPattern& pattern :
       std::vector<core::BlockPattern>{{1, 1, 3, 1}, {5, 2, 2, 1}, {16, 1, 4}, {3, 1, 5, 2}}) {
    AttentionOptions more = by_blocks(pattern);  // and every other option with it
    more.window = 40;
    more.softcap = 2.5;
    more.slopes = alibi_slopes(c.shape.heads);
    more.dropout = 0.2;
    more.dropout_seed = 3;
    for (const bool packed : {false, true}) {
      for (const AttentionOptions& options : {by_blocks(pattern), more}) {
        SCOPED_TRACE(::testing::Message() << packed << pattern.size << options.window);
        const Positions positions = positions_of(c, packed, true);
        expect_reference(
            [&](const Tensors& x) { return attention(x[0], c.shape, positions, options); },
            [&](const Tensors& x) {
              return reference::attention(x[0], c.shape, positions, options);
            },
            {qkv_of(c)});
      }
    }
  }
}

// Blocks of the pattern beside those of the kernel: narrower, wider, in one and across several.
TEST(AttentionOperatorBlocks, AreLeftOutOfLongRows) {
  const Case c{2, 700, {4, 2, 8}};
  for (const core::BlockPattern& pattern :
       std::vector<core::BlockPattern>{{64, 2, 4, 1}, {24, 3, 8}, {300, 1, 2, 1}, {7, 1, 9, 2}}) {
    for (const bool packed : {false, true}) {
      const Positions positions = positions_of(c, packed, true);
      expect_reference(
          [&](const Tensors& x) { return attention(x[0], c.shape, positions, by_blocks(pattern)); },
          [&](const Tensors& x) {
            return reference::attention(x[0], c.shape, positions, by_blocks(pattern));
          },
          {qkv_of(c)});
    }
  }
}

TEST(AttentionOperatorBlocks, LearnABiasByDistance) {
  const Case c{2, 130, {4, 2, 8}};
  const auto with_bias = [](const at::Tensor& bias) {
    AttentionOptions options = by_blocks({8, 2, 3, 1});
    options.bias = bias.to(at::kFloat);
    return options;
  };
  expect_reference(
      [&](const Tensors& x) { return attention(x[0], c.shape, {}, with_bias(x[1])); },
      [&](const Tensors& x) { return reference::attention(x[0], c.shape, {}, with_bias(x[1])); },
      {qkv_of(c), drawn({4, 130}, 4)}, 2e-5);
}

// What a token does not see has no part in it, whatever it holds.
TEST(AttentionOperatorBlocks, HideWhatIsNotSeen) {
  const AttentionShape shape{1, 1, 8};
  const core::BlockPattern pattern{16, 1, 3};
  const at::Tensor qkv = drawn({1, 90, 24}, 5);
  at::Tensor other = qkv.clone();
  other.narrow(1, 16, 16).mul_(50);  // block 1, which only its own tokens see
  const at::Tensor a = attention(qkv, shape, {}, by_blocks(pattern)),
                   b = attention(other, shape, {}, by_blocks(pattern));
  EXPECT_TRUE(a.narrow(1, 32, 58).equal(b.narrow(1, 32, 58)));
  EXPECT_FALSE(a.narrow(1, 16, 16).equal(b.narrow(1, 16, 16)));
}

// Many blocks of keys, of which a window leaves most out.
TEST(AttentionOperatorWindow, LeavesOutWholeBlocks) {
  const Case c{1, 700, {2, 1, 8}};
  for (const int64_t window : {3, 200, 256, 300}) {
    const AttentionOptions options{window};
    expect_reference(
        [&](const Tensors& x) { return attention(x[0], c.shape, {}, options); },
        [&](const Tensors& x) { return reference::attention(x[0], c.shape, {}, options); },
        {qkv_of(c)});
  }
}

TEST(AttentionOperatorDropout, KeepsTheMeanAndDrawsAnewForEverySeedHeadAndRow) {
  const AttentionShape shape{3, 3, 4};
  AttentionOptions options;
  options.dropout = 0.25;
  options.dropout_seed = 7;
  const at::Tensor one = dropout_factors(shape, options, 2, 64);
  EXPECT_TRUE(one.equal(dropout_factors(shape, options, 2, 64)));
  EXPECT_NEAR(one.mean().item<double>(), 1.0, 0.02);
  EXPECT_NEAR(one.eq(0).to(at::kFloat).mean().item<double>(), 0.25, 0.02);
  options.dropout_seed = 8;
  const auto differ = [](const at::Tensor& a, const at::Tensor& b) {
    return a.ne(b).to(at::kFloat).mean().item<double>();  // 2 * 0.25 * 0.75 where independent
  };
  EXPECT_NEAR(differ(one, dropout_factors(shape, options, 2, 64)), 0.375, 0.03);
  EXPECT_NEAR(differ(one[0], one[1]), 0.375, 0.03);
  EXPECT_NEAR(differ(one[0][0], one[0][1]), 0.375, 0.04);
  EXPECT_NEAR(differ(one[0][0][0], one[0][0][1]), 0.375, 0.25);
}

TEST(AttentionOperatorAlibi, SlopesAreThoseOfThePaper) {
  const auto slopes = [](int64_t heads, int64_t i) { return alibi_slopes(heads)[i].item<float>(); };
  EXPECT_FLOAT_EQ(slopes(8, 0), 0.5f);
  EXPECT_FLOAT_EQ(slopes(8, 7), 1.0f / 256);
  EXPECT_FLOAT_EQ(slopes(12, 8), std::exp2(-0.5f));
  EXPECT_EQ(alibi_slopes(12).size(0), 12);
}

TEST(AttentionOperatorSlopes, GradientsAreSlopes) {
  const Case c{2, 5, {2, 1, 4}};
  for (const bool packed : {false, true}) {
    const Positions positions = positions_of(c, packed, true);
    expect_slopes([&](const Tensors& x) { return attention(x[0], c.shape, positions); },
                  {qkv_of(c)});
  }
}

TEST(AttentionOperatorInputs, NeedNotBeContiguous) {
  const Case c{3, 9, {2, 2, 4}};
  const Positions positions = positions_of(c, true, true);
  const at::Tensor ids = positions.ids.t().contiguous().t();
  expect_reference(
      [&](const Tensors& x) {
        return attention(x[0].transpose(0, 1), c.shape, {ids, positions.cos, positions.sin});
      },
      [&](const Tensors& x) {
        return reference::attention(x[0].transpose(0, 1), c.shape, positions);
      },
      {drawn({9, 3, 24}, 3)});
}

TEST(AttentionOperatorReference, RunsWhenAskedFor) {
  const Case c{2, 7, {2, 1, 4}};
  const at::Tensor qkv = qkv_of(c);
  const at::Tensor expected = reference::attention(qkv, c.shape, {});
  const ReferenceMode plain;
  EXPECT_LE(distance(attention(qkv.to(at::kDouble), c.shape, {}), expected), 1e-6);
}

TEST(AttentionOperatorErrors, NameWhatWasExpected) {
  const AttentionShape shape{4, 2, 8};  // 64 columns
  const at::Tensor qkv = at::zeros({2, 5, 64}, at::kFloat), table = at::zeros({9, 4}, at::kFloat);
  const auto message = [&](const at::Tensor& x, const AttentionShape& s, const Positions& p) {
    return message_of([&] { attention(x, s, p); });
  };
  EXPECT_EQ(message(qkv, shape, {{}, table, table}), "");
  EXPECT_TRUE(holds(message(qkv, {4, 3, 8}, {}), "3 key-value heads cannot share"));
  EXPECT_TRUE(holds(message(qkv, {4, 0, 8}, {}), "0 key-value heads"));
  EXPECT_TRUE(holds(message(qkv.narrow(2, 0, 60), shape, {}), "[batch, time, 64]"));
  EXPECT_TRUE(holds(message(qkv[0], shape, {}), "not the shape [5, 64]"));
  EXPECT_TRUE(holds(message(qkv, shape, {at::zeros({2, 4}, at::kLong), {}, {}}), "positions"));
  EXPECT_TRUE(holds(message(qkv, shape, {at::zeros({2, 5}, at::kInt), {}, {}}), "int64"));
  const auto refusal = [&](const AttentionOptions& options) {
    return message_of([&] { attention(qkv, shape, {}, options); });
  };
  EXPECT_TRUE(holds(refusal({-1}), "a window"));
  EXPECT_TRUE(holds(refusal(by_blocks({8, 0, 2})), "not 8, 0, 0 and 2"));
  AttentionOptions both_sides = by_blocks({2, 1, 2});
  both_sides.causal = false;
  EXPECT_TRUE(holds(refusal(both_sides), "which looks back"));
  EXPECT_TRUE(holds(refusal({0, -2.0}), "a softcap"));
  EXPECT_TRUE(holds(refusal({0, 0, {}, 1.0}), "a dropout below 1"));
  AttentionOptions short_bias;
  short_bias.bias = at::zeros({4, 4}, at::kFloat);
  EXPECT_TRUE(holds(refusal(short_bias), "at least 5 distances for each of its 4"));
  EXPECT_TRUE(holds(refusal({0, 0, alibi_slopes(3)}), "one float32 slope a query head, 4"));
  const at::Tensor low = table.narrow(0, 0, 4), thin = at::zeros({9, 3}, at::kFloat);
  EXPECT_TRUE(holds(message(qkv, shape, {{}, low, low}), "at least 5 rows"));
  EXPECT_TRUE(holds(message(qkv, shape, {{}, table, thin}), "8 / 2 columns"));
  EXPECT_TRUE(holds(message(qkv.to(at::kDouble), shape, {}), "not Double"));
}

}  // namespace
}  // namespace omnima::ops
