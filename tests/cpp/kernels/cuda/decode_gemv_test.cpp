// The decode step's products against the plain sums in doubles, for every kind of number.
#include "omnima/kernels/cuda/decode_gemv.h"

#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/zeros.h>

#include "cuda_fixture.h"

namespace omnima::kernels::cuda {
namespace {

// A matrix with drawn numbers, and the same numbers in doubles.
struct Drawn {
  DecodeMatrix matrix;
  at::Tensor numbers, scales, leasts, expected;
};

at::Tensor halves(const std::vector<std::int64_t>& sizes, std::uint64_t seed) {
  return (drawn(sizes, seed) * 0.1).to(at::kHalf);
}

Drawn plain_matrix(std::int64_t outputs, std::int64_t inputs, Numbers kind, std::int64_t shift) {
  const auto type = kind == Numbers::kFloat32   ? at::kFloat
                    : kind == Numbers::kFloat16 ? at::kHalf
                                                : at::kBFloat16;
  Drawn out;
  out.numbers = moved(drawn({outputs, inputs}, 11).to(type), shift);
  out.expected = out.numbers.to(at::kDouble);
  out.matrix.row_bytes = inputs * static_cast<std::int64_t>(out.numbers.element_size());
  return out;
}

Drawn level_matrix(std::int64_t outputs, std::int64_t inputs, Numbers kind, std::int64_t group,
                   bool has_least) {
  const bool bytes = kind == Numbers::kInt8;
  auto generator = at::detail::createCPUGenerator(5);
  const at::Tensor levels =
      at::randint(0, bytes ? 256 : 16, {outputs, inputs}, generator, at::kInt);
  Drawn out;
  const std::int64_t row = (inputs * (bytes ? 8 : 4) / 8 + 15) / 16 * 16;
  out.numbers = at::full({outputs, row}, 0x77, at::kByte);
  for (std::int64_t i = 0; i < outputs; ++i) {
    for (std::int64_t j = 0; j < inputs; ++j) {
      const auto level = static_cast<std::uint8_t>(levels[i][j].item<int>());
      auto* to = data<std::uint8_t>(out.numbers) + i * row;
      if (bytes) {
        to[j] = level;
      } else {
        std::uint8_t& both = to[j / 2];
        both = static_cast<std::uint8_t>(j % 2 == 0 ? (both & 0xf0) | level
                                                    : (both & 0x0f) | level << 4);
      }
    }
  }
  out.scales = halves({outputs, inputs / group}, 12);
  const auto wide = [&](const at::Tensor& x) {
    return x.to(at::kDouble).repeat_interleave(group, 1);
  };
  const double zero = bytes ? 128 : has_least ? 0 : 8;
  out.expected = (levels.to(at::kDouble) - zero) * wide(out.scales);
  if (has_least) {
    out.leasts = halves({outputs, inputs / group}, 13);
    out.expected = out.expected + wide(out.leasts);
    out.matrix.leasts = data<std::uint16_t>(out.leasts);
  }
  out.matrix.scales = data<std::uint16_t>(out.scales);
  out.matrix.group = group;
  out.matrix.row_bytes = row;
  return out;
}

struct Case {
  Numbers kind;
  std::int64_t outputs, inputs;
  std::int64_t group = 0;
  bool has_least = false;
  std::int64_t shift = 0;  // elements away from an aligned address
};

Drawn matrix_of(const Case& c) {
  Drawn out = c.group == 0 ? plain_matrix(c.outputs, c.inputs, c.kind, c.shift)
                           : level_matrix(c.outputs, c.inputs, c.kind, c.group, c.has_least);
  out.matrix.numbers = out.numbers.const_data_ptr();
  out.matrix.kind = c.kind;
  out.matrix.outputs = c.outputs;
  out.matrix.inputs = c.inputs;
  return out;
}

const std::vector<Case>& cases() {
  static const std::vector<Case> all{{Numbers::kFloat32, 5, 8},
                                     {Numbers::kFloat32, 7, 520},
                                     {Numbers::kFloat32, 3, 37},
                                     {Numbers::kFloat32, 9, 64, 0, false, 1},
                                     {Numbers::kBfloat16, 33, 264},
                                     {Numbers::kBfloat16, 4, 19},
                                     {Numbers::kBfloat16, 2, 48, 0, false, 3},
                                     {Numbers::kFloat16, 17, 72},
                                     {Numbers::kFloat16, 3, 21},
                                     {Numbers::kInt8, 6, 64, 32},
                                     {Numbers::kInt8, 9, 576, 576},
                                     {Numbers::kInt8, 5, 24, 24},
                                     {Numbers::kInt8, 3, 21, 21},
                                     {Numbers::kInt4, 18, 64, 32},
                                     {Numbers::kInt4, 5, 1152, 64, true},
                                     {Numbers::kInt4, 70, 128, 128},
                                     {Numbers::kInt4, 3, 96, 32, true}};
  return all;
}

// 8 bits at a time are what sums are compared with: relative to the sum of magnitudes.
double apart(const at::Tensor& y, const at::Tensor& expected, const at::Tensor& magnitude) {
  return ((y.to(at::kDouble) - expected).abs() / (magnitude + 1e-30)).max().item<double>();
}

TEST(DecodeGemv, EqualsTheSumsOfEveryKindOfNumber) {
  for (const Case& c : cases()) {
    const Drawn drawn_matrix = matrix_of(c);
    for (const std::int64_t rows : {1, 2, 3, 5, 8, 11}) {
      const at::Tensor x = drawn({rows, c.inputs}, 21);
      const at::Tensor bias = drawn({c.outputs}, 22), before = drawn({rows, c.outputs}, 23);
      for (const bool adds : {false, true}) {
        const Tensors y = in_both_orders([&] {
          const at::Tensor out = before.clone();
          GemvTask task;
          task.outputs[0] = {drawn_matrix.matrix, data<float>(bias), data<float>(out), c.outputs};
          task.count = 1;
          task.x = data<float>(x);
          task.rows = rows;
          task.adds = adds;
          decode_gemv(task, nullptr);
          return Tensors{out};
        });
        const at::Tensor wide = x.to(at::kDouble), w = drawn_matrix.expected;
        at::Tensor expected = wide.mm(w.t()) + bias.to(at::kDouble);
        if (adds) expected = expected + before.to(at::kDouble);
        const at::Tensor magnitude = wide.abs().mm(w.abs().t()) + 1;
        EXPECT_LE(apart(y[0], expected, magnitude), 2e-6)
            << static_cast<int>(c.kind) << " [" << c.outputs << ", " << c.inputs << "] " << rows;
      }
    }
  }
}

TEST(DecodeGemv, ARowsSumsDoNotDependOnTheOthers) {
  for (const Case& c : cases()) {
    const Drawn one = matrix_of(c);
    const at::Tensor x = drawn({11, c.inputs}, 21);
    const auto product = [&](std::int64_t first, std::int64_t rows) {
      const at::Tensor y = at::zeros({rows, c.outputs}, at::kFloat);
      const at::Tensor part = x.narrow(0, first, rows).clone();
      GemvTask task;
      task.outputs[0] = {one.matrix, nullptr, data<float>(y), c.outputs};
      task.count = 1;
      task.x = data<float>(part);
      task.rows = rows;
      decode_gemv(task, nullptr);
      return y;
    };
    const at::Tensor all = product(0, 11);
    for (const std::int64_t rows : {1, 2, 3, 7}) {
      EXPECT_TRUE(same_bits(product(4, rows), all.narrow(0, 4, rows).clone())) << rows;
    }
  }
}

TEST(DecodeGemv, ThreeMatricesInOneLaunch) {
  const Case shapes[] = {
      {Numbers::kInt4, 12, 64, 32}, {Numbers::kInt4, 5, 64, 32, true}, {Numbers::kInt4, 3, 64, 64}};
  const at::Tensor x = drawn({3, 64}, 1), together = at::zeros({3, 30}, at::kFloat);
  const at::Tensor alone = at::zeros({3, 30}, at::kFloat);
  std::vector<Drawn> matrices;
  GemvTask all;
  all.x = data<float>(x);
  all.rows = 3;
  std::int64_t column = 2;
  for (const Case& c : shapes) {
    matrices.push_back(matrix_of(c));
    GemvTask one = all;
    one.count = 1;
    one.outputs[0] = {matrices.back().matrix, nullptr, data<float>(alone) + column, 30};
    decode_gemv(one, nullptr);
    all.outputs[all.count++] = {matrices.back().matrix, nullptr, data<float>(together) + column,
                                30};
    column += c.outputs + 1;
  }
  all.count = 3;
  const auto before = emulated_cuda::launches();
  decode_gemv(all, nullptr);
  EXPECT_EQ(emulated_cuda::launches(), before + 1);
  EXPECT_TRUE(same_bits(together, alone));
  EXPECT_EQ(together.narrow(1, 0, 2).abs().max().item<float>(), 0);  // and nothing beside them
  EXPECT_EQ(together.select(1, 14).abs().max().item<float>(), 0);
}

TEST(UnpackRows, GivesTheNumbers) {
  for (const Case& c : cases()) {
    const Drawn one = matrix_of(c);
    const std::int64_t first = c.outputs > 2 ? 1 : 0, count = c.outputs - first;
    const Tensors out = in_both_orders([&] {
      const at::Tensor floats = at::zeros({count, c.inputs}, at::kFloat);
      const at::Tensor half = at::zeros({count, c.inputs}, at::kBFloat16);
      unpack_rows(one.matrix, first, count, data<float>(floats), nullptr);
      unpack_rows(one.matrix, first, count, data<bfloat16>(half), nullptr);
      return Tensors{floats, half};
    });
    const at::Tensor expected = one.expected.narrow(0, first, count);
    EXPECT_LE(distance(out[0], expected), 1e-6) << static_cast<int>(c.kind);
    EXPECT_TRUE(same_bits(out[1], out[0].to(at::kBFloat16)));
  }
}

}  // namespace
}  // namespace omnima::kernels::cuda
