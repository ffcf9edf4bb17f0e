// Quantization methods: each beside a plain version of what its paper says, and all in all formats.
#include "omnima/quant/methods/methods.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "omnima/core/error.h"
#include "omnima/quant/convert.h"
#include "omnima/quant/methods/refit.h"

namespace omnima::quant {
namespace {

// Inputs that lean on each other, a few of them large, as in language models.
at::Tensor moments_of(int64_t inputs) {
  at::manual_seed(4);
  const at::Tensor mix = at::randn({inputs, inputs}) + 3 * at::eye(inputs);
  at::Tensor x = at::randn({4 * inputs, inputs}).mm(mix);
  x.narrow(1, 3, 2).mul_(20);
  return x.t().mm(x).div(4 * inputs).contiguous();
}

at::Tensor matrix(int64_t rows, int64_t inputs) {
  at::manual_seed(5);
  return at::randn({rows, inputs}) * at::rand({rows, 1}).add(0.1);
}

at::Tensor plainly_rounded(const Format& format, const at::Tensor& weight) {
  return dequantized(format, quantized(format, weight).const_data_ptr(), weight.sizes());
}

class EveryGrid : public testing::TestWithParam<std::pair<const Method*, const Format*>> {};

TEST_P(EveryGrid, BlocksHoldTheChosenNumbers) {
  const auto [method, format] = GetParam();
  const int64_t inputs = format->numbers > 128 ? format->numbers : 2 * format->numbers;
  const at::Tensor weight = matrix(7, inputs), moments = moments_of(inputs);
  const Levels chosen = method->quantize(*format, weight, moments);
  const at::Tensor blocks = chosen.blocks();
  ASSERT_EQ(blocks.sizes(), (std::vector<int64_t>{7, format->row_bytes(inputs)}));
  const at::Tensor again = dequantized(*format, blocks.const_data_ptr(), weight.sizes());
  EXPECT_TRUE(again.equal(chosen.numbers()));
  // Better by what it looks at than to round without a search.
  const at::Tensor by_rule = plainly_rounded(*format, weight);
  const at::Tensor measure = method->reads_text ? moments : at::eye(inputs);
  EXPECT_LE(output_error(weight - again, measure), 1.001 * output_error(weight - by_rule, measure));
}

TEST_P(EveryGrid, ThreadsChangeNothing) {
  const auto [method, format] = GetParam();
  const at::Tensor weight = matrix(5, format->numbers), moments = moments_of(format->numbers);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const at::Tensor one = method->quantize(*format, weight, moments).blocks();
  at::set_num_threads(3);
  const at::Tensor three = method->quantize(*format, weight, moments).blocks();
  at::set_num_threads(threads);
  EXPECT_TRUE(one.equal(three));
}

TEST_P(EveryGrid, ConstantAndZeroRowsComeBack) {
  const auto [method, format] = GetParam();
  at::Tensor weight = at::zeros({3, format->numbers});
  weight[1].fill_(-0.5);
  weight[2].fill_(2);
  const at::Tensor found = method->quantize(*format, weight, {}).numbers();
  EXPECT_TRUE(found.allclose(weight, 0.05)) << (found - weight).abs().max();
  EXPECT_TRUE(found[0].eq(0).all().item<bool>());
}

std::vector<std::pair<const Method*, const Format*>> pairs() {
  std::vector<std::pair<const Method*, const Format*>> all;
  for (const Method* method : methods()) {
    for (const Format* format : formats()) {
      if (format->grid != nullptr) all.emplace_back(method, format);
    }
  }
  return all;
}

INSTANTIATE_TEST_SUITE_P(All, EveryGrid, testing::ValuesIn(pairs()), [](const auto& each) {
  return std::string(each.param.first->name) + "_" + each.param.second->name;
});

TEST(Methods, UnknownOnesAndFormatsWithoutLevelsAreRefused) {
  EXPECT_THROW(method_named("magic"), core::ConfigError);
  EXPECT_THROW(nearest_levels(format_named("q4_k"), matrix(1, 256), {}), core::ConfigError);
  EXPECT_THROW(nearest_levels(format_named("int4_g64"), matrix(1, 96), {}), core::ConfigError);
}

// Optimal brain quantization by the book: after each column the inverse of the moments of those
// that are left (Frantar et al. 2022, equations 2 and 3), in double.
at::Tensor plain_gptq(const at::Tensor& weight, const at::Tensor& moments, const Levels& scales) {
  const int64_t inputs = weight.size(1);
  at::Tensor w = weight.to(at::kDouble).clone(), made = at::empty_like(weight);
  at::Tensor h = moments.to(at::kDouble);
  h = h + 0.01 * h.diagonal().mean() * at::eye(inputs, at::kDouble);
  at::Tensor inverse = at::linalg_inv(h);
  const at::Tensor order = moments.diagonal().argsort(true, 0, true);
  for (int64_t i = 0; i < inputs; ++i) {
    const int64_t j = order[i].item<int64_t>(), g = j / scales.grid().group;
    at::Tensor error = at::empty({weight.size(0)}, at::kDouble);
    for (int64_t row = 0; row < weight.size(0); ++row) {
      const float scale = scales.scales[row][g].item<float>();
      const float least = scales.least[row][g].item<float>();
      const auto level = scales.grid().nearest(w[row][j].item<float>(), scale, least);
      made[row][j] = scale * scales.grid().values[level] + least;
      error[row] = w[row][j] - made[row][j].to(at::kDouble);
    }
    w = w - at::outer(error / inverse[j][j], inverse[j]);
    inverse = inverse - at::outer(inverse.select(1, j), inverse[j]) / inverse[j][j];
    inverse.select(0, j).zero_();
    inverse.select(1, j).zero_();
    inverse[j][j] = 1;
  }
  return made;
}

TEST(Gptq, IsOptimalBrainQuantizationColumnByColumn) {
  for (const char* name : {"int4z_g32", "int4_g64", "nf4_g32x4"}) {
    const Format& format = format_named(name);
    const at::Tensor weight = matrix(6, 128), moments = moments_of(128);
    const Levels scales = nearest_levels(format, weight, moments.diagonal().contiguous());
    Levels made = kGptq.quantize(format, weight, moments);
    made.scales = scales.scales;  // those that the levels were chosen for
    made.least = scales.least;
    const at::Tensor found = made.numbers();
    const at::Tensor expected = plain_gptq(weight, moments, scales);
    // A number on the border between two levels may go either way, and so do those after it.
    EXPECT_GT((found - expected).abs().lt(1e-6).to(at::kDouble).mean().item<double>(), 0.97)
        << name;
    EXPECT_NEAR(output_error(weight - found, moments) / output_error(weight - expected, moments), 1,
                0.02)
        << name;
  }
}

// The rows of a matrix by ordinary least squares over all of the text's inputs, in double.
TEST(Gptq, ScalesAreRefittedToTheOutputs) {
  for (const char* name : {"int4z_g32", "int4_g64", "nf4_g32x4"}) {
    const Format& format = format_named(name);
    const at::Tensor weight = matrix(6, 128), moments = moments_of(128);
    Levels made = nearest_levels(format, weight, {});
    const Levels before = made;
    const at::Tensor old_scales = made.scales.clone(), old_least = made.least.clone();
    const double old_error = output_error(weight - made.numbers(), moments);
    refit_scales(made, weight, moments);
    const double error = output_error(weight - made.numbers(), moments);
    EXPECT_LT(error, 0.98 * old_error) << name;
    EXPECT_TRUE(made.levels.equal(before.levels));

    const at::Tensor root = at::linalg_cholesky(moments.to(at::kDouble)).t();  // H = R^T R
    double least = 0;
    const std::int64_t groups = made.groups(), size = made.grid().group;
    for (std::int64_t row = 0; row < made.rows(); ++row) {
      at::Tensor basis = at::zeros({128, made.grid().has_least ? 2 * groups : groups}, at::kDouble);
      for (std::int64_t i = 0; i < 128; ++i) {
        const auto level = made.levels[row][i].item<std::uint8_t>();
        basis[i][i / size] = made.grid().values[level];
        if (made.grid().has_least) basis[i][groups + i / size] = 1;
      }
      const at::Tensor aim = root.mv(weight[row].to(at::kDouble)).unsqueeze(1);
      const at::Tensor best = std::get<0>(at::linalg_lstsq(root.mm(basis), aim));
      least += (aim - root.mm(basis).mm(best)).square().sum().item<double>();
    }
    EXPECT_GE(error, 0.999 * least) << name;
    // Scales of nf4 are bytes, which no longer hit the best.
    EXPECT_LE(error, (made.grid().uniform() ? 1.02 : 2.0) * least) << name;
  }
}

TEST(Gptq, RowsThatNoOtherScalesBringNearerStay) {
  const Format& format = format_named("int4z_g32");
  const at::Tensor weight = matrix(3, 64), moments = moments_of(64);
  Levels made = nearest_levels(format, weight, {});
  refit_scales(made, weight, moments);
  const at::Tensor scales = made.scales.clone(), least = made.least.clone();
  refit_scales(made, made.numbers(), moments);  // they are there already
  EXPECT_TRUE(made.scales.equal(scales) && made.least.equal(least));
}

// A matrix whose inputs have drifted away from what they were.
TEST(Gptq, FollowsTheOutputsOfBefore) {
  const Format& format = format_named("int4z_g64");
  const at::Tensor weight = matrix(16, 128);
  at::manual_seed(6);
  const at::Tensor mix = at::randn({128, 128}) + 3 * at::eye(128);
  const at::Tensor was = at::randn({2000, 128}).mm(mix);
  const at::Tensor x = was + 0.5 * was.mm(at::randn({128, 128}).div(12)) + at::randn({2000, 128});
  const at::Tensor moments = x.t().mm(x).div(2000), drift = (was - x).t().mm(x).div(2000);
  const auto missed = [&](const TextMoments& text) {
    const at::Tensor made = kGptq.quantize(format, weight, text).numbers();
    return (was.mm(weight.t()) - x.mm(made.t())).square().mean().item<double>();
  };
  EXPECT_LT(missed({moments, drift}), 0.9 * missed({moments}));
}

TEST(Gptq, LowersTheErrorOfTheOutputs) {
  const at::Tensor weight = matrix(16, 256), moments = moments_of(256);
  for (const char* name : {"int4z_g64", "int4_g32", "nf4_g64x4", "int8_g64"}) {
    const Format& format = format_named(name);
    const at::Tensor nearest = nearest_levels(format, weight, {}).numbers();
    const at::Tensor found = kGptq.quantize(format, weight, moments).numbers();
    EXPECT_LT(output_error(weight - found, moments), output_error(weight - nearest, moments))
        << name;
  }
}

TEST(Gptq, AMomentsMatrixWithoutInputsIsDamped) {
  const at::Tensor weight = matrix(4, 64);
  at::Tensor moments = moments_of(64);
  moments.narrow(0, 8, 4).zero_();
  moments.narrow(1, 8, 4).zero_();  // these inputs are never anything but 0
  const Levels found = kGptq.quantize(format_named("int4z_g32"), weight, moments);
  EXPECT_TRUE(found.numbers().isfinite().all().item<bool>());
  EXPECT_THROW(kGptq.quantize(format_named("int4z_g32"), weight, -moments), core::Error);
}

TEST(Awq, TheExponentIsTheBestOfTwenty) {
  const Format& format = format_named("int4_g32");
  const std::vector<at::Tensor> weights{matrix(8, 64), matrix(4, 64) * 0.3};
  const at::Tensor moments = moments_of(64), magnitude = moments.diagonal().sqrt();
  const auto error_of = [&](const at::Tensor& s) {
    double error = 0;
    const at::Tensor counts = moments.diagonal().div(s.square()).contiguous();
    for (const auto& weight : weights) {
      const at::Tensor rounded =
          nearest_levels(format, (weight * s).contiguous(), counts, Search::kQuick).numbers();
      error += output_error(weight - rounded / s, moments);
    }
    return error;
  };
  double least = error_of(at::ones({64}));
  for (int i = 1; i < 20; ++i) {
    const at::Tensor s = magnitude.pow(i / 20.0);
    least = std::min(least, error_of((s / (s.max() * s.min()).sqrt()).contiguous()));
  }
  const at::Tensor found = kAwq.scales(format, weights, moments);
  ASSERT_TRUE(found.defined());
  EXPECT_NEAR(error_of(found), least, 1e-3 * least);
  EXPECT_LT(error_of(found), 0.9 * error_of(at::ones({64})));
}

}  // namespace
}  // namespace omnima::quant
