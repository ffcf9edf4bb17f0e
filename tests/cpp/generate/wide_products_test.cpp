// Products of a prompt at every level, against sums in double of the numbers, rounded in bfloat16.
#include "omnima/generate/wide_products.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "omnima/quant/format.h"

namespace omnima::generate {
namespace {

struct Shape {
  std::int64_t rows, inputs, outputs, others;
};

template <class T>
constexpr at::ScalarType kType = sizeof(T) == 4 ? at::kFloat : at::kBFloat16;

// Two products of the same rows, as one call makes them; the second has a bias.
template <class T>
void check(const Shape& s, const std::string& format, kernels::Level level, int threads) {
  SCOPED_TRACE(testing::Message() << kernels::level_name(level) << " " << format << " " << s.rows
                                  << " x " << s.inputs << " x " << s.outputs);
  at::manual_seed(5);
  const at::Tensor x = at::randn({s.rows, s.inputs});
  std::vector<at::Tensor> weights{at::randn({s.outputs, s.inputs}),
                                  at::randn({s.others, s.inputs})};
  const at::Tensor bias = at::randn({s.others});
  Team team(threads);
  WideProducts<T> products(team, level);
  products.begin(s.rows, s.inputs);
  for (std::int64_t i = 0; i < s.rows; ++i) {
    products.put(i, x.const_data_ptr<float>() + i * s.inputs);
  }
  const std::int64_t stride = s.outputs + s.others + 3;
  at::Tensor y = at::full({s.rows, stride}, 7.0);
  std::vector<Linear> linears(2);
  for (int i = 0; i < 2; ++i) {
    if (format == "bf16") weights[i] = weights[i].to(at::kBFloat16);
    linears[i].weight = quant::matrix_of(weights[i]);
    linears[i].outputs = weights[i].size(0);
    linears[i].inputs = s.inputs;
  }
  linears[1].bias.tensor = bias;
  const std::vector<Output> outputs{{&linears[0], y.data_ptr<float>(), stride},
                                    {&linears[1], y.data_ptr<float>() + s.outputs, stride}};
  products.run(outputs);
  const auto rounded = [](const at::Tensor& t) { return t.to(kType<T>).to(at::kDouble); };
  const auto off = [](const at::Tensor& a, const at::Tensor& b) {
    return (a.to(at::kDouble) - b).abs().max().item<double>();
  };
  const double near = 1e-5 * std::sqrt(static_cast<double>(s.inputs)) + 1e-5;
  EXPECT_LT(off(y.narrow(1, 0, s.outputs), at::mm(rounded(x), rounded(weights[0]).t())), near);
  EXPECT_LT(off(y.narrow(1, s.outputs, s.others),
                at::mm(rounded(x), rounded(weights[1]).t()) + bias.to(at::kDouble)),
            near);
  EXPECT_TRUE(y.narrow(1, s.outputs + s.others, 3).eq(7).all().item<bool>());
  // Added to what is there.
  const at::Tensor once = y.to(at::kDouble);
  auto added = outputs;
  for (Output& output : added) output.add = true;
  products.run(added);
  EXPECT_LT(off(y.narrow(1, 0, s.outputs + s.others), 2 * once.narrow(1, 0, s.outputs + s.others)),
            2 * near);
}

// The sums of a row are the same to the bit, whatever rows there are beside it.
template <class T>
void check_alone(kernels::Level level) {
  const std::int64_t rows = 70, inputs = 900, outputs = 130;
  at::manual_seed(7);
  const at::Tensor x = at::randn({rows, inputs}), weight = at::randn({outputs, inputs});
  Linear linear;
  linear.weight = quant::matrix_of(weight);
  linear.outputs = outputs, linear.inputs = inputs;
  Team team(2);
  WideProducts<T> products(team, level);
  const auto sums = [&](std::int64_t first, std::int64_t count) {
    products.begin(count, inputs);
    for (std::int64_t i = 0; i < count; ++i) {
      products.put(i, x.const_data_ptr<float>() + (first + i) * inputs);
    }
    at::Tensor y = at::empty({count, outputs});
    const Output output{&linear, y.data_ptr<float>(), outputs};
    products.run({&output, 1});
    return y;
  };
  const at::Tensor all = sums(0, rows);
  for (const std::int64_t count : {1, 5, 12, 33}) {
    for (std::int64_t first = 0; first + count <= rows; first += 17) {
      EXPECT_TRUE(sums(first, count).equal(all.narrow(0, first, count)))
          << kernels::level_name(level) << " " << first << " " << count;
    }
  }
}

TEST(WideProductsOf, OddShapesAtEveryLevel) {
  for (const Shape& shape : std::vector<Shape>{{1, 1, 1, 2},
                                               {33, 576, 192, 31},
                                               {47, 37, 65, 7},
                                               {32, 64, 300, 32},
                                               {70, 1025, 33, 5},
                                               {13, 2100, 40, 70},
                                               {5, 600, 1700, 40}}) {
    for (int level = 0; level <= static_cast<int>(kernels::detected_level()); ++level) {
      for (const std::string format : {"f32", "bf16"}) {
        for (const int threads : {1, 3}) {
          check<kernels::bfloat16>(shape, format, static_cast<kernels::Level>(level), threads);
          check<float>(shape, format, static_cast<kernels::Level>(level), threads);
        }
      }
    }
  }
}

TEST(WideProductsOf, ARowDoesNotDependOnTheOthers) {
  for (int level = 0; level <= static_cast<int>(kernels::detected_level()); ++level) {
    check_alone<float>(static_cast<kernels::Level>(level));
    check_alone<kernels::bfloat16>(static_cast<kernels::Level>(level));
  }
}

TEST(WideProductsOf, GateAndUpAreRoundedOnce) {
  at::manual_seed(6);
  for (int level = 0; level <= static_cast<int>(kernels::detected_level()); ++level) {
    for (const int threads : {1, 3}) {
      const std::int64_t rows = 37, inputs = 90, inner = 1999;
      const at::Tensor x = at::randn({rows, inputs}), of_gate = at::randn({inner, inputs}),
                       of_up = at::randn({inner, inputs}), bias = at::randn({inner});
      Linear gate, up;
      gate.weight = quant::matrix_of(of_gate), up.weight = quant::matrix_of(of_up);
      gate.outputs = up.outputs = inner, gate.inputs = up.inputs = inputs;
      up.bias.tensor = bias;
      Team team(threads);
      HalfProducts halves(team, static_cast<kernels::Level>(level));
      HalfProducts made(team, static_cast<kernels::Level>(level));
      halves.begin(rows, inputs);
      made.begin(rows, inner);
      for (std::int64_t i = 0; i < rows; ++i) {
        halves.put(i, x.const_data_ptr<float>() + i * inputs);
      }
      halves.run_gated(
          gate, up,
          [&](float* sums, std::int64_t count, kernels::bfloat16* y) {
            for (std::int64_t i = 0; i < count; ++i) sums[i] *= sums[count + i];
            kernels::gemm_kernels<kernels::bfloat16>().convert(sums, count, y);
          },
          made);
      const auto rounded = [](const at::Tensor& t) { return t.to(at::kBFloat16).to(at::kDouble); };
      const at::Tensor expected = at::mm(rounded(x), rounded(of_gate).t()) *
                                  (at::mm(rounded(x), rounded(of_up).t()) + bias.to(at::kDouble));
      const at::Tensor found =
          at::from_blob(made.row(0), {rows, inner}, {made.stride(), 1}, at::kBFloat16);
      const at::Tensor off = (found.to(at::kDouble) - expected).abs() / (1 + expected.abs());
      EXPECT_LT(off.max().item<double>(), 1.0 / 200) << level << " " << threads;
    }
  }
}

}  // namespace
}  // namespace omnima::generate
