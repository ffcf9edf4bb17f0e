// Divergences by chunks of rows: the sum, both gradients, rows that do not count and what does not
// fit.
#include "omnima/ops/linear_divergence.h"

#include <ATen/ops/full.h>

#include "omnima/ops/reference.h"
#include "ops_fixture.h"

namespace omnima::ops {
namespace {

constexpr double kScale = 0.125;

at::Tensor labels_of(int64_t rows) {
  const at::Tensor labels = at::full({rows}, 1, at::kLong);
  for (int64_t i = 3; i < rows; i += 5) labels.data_ptr<int64_t>()[i] = -100;
  return labels;
}

// Rows for one chunk, for several that are not full, and a vocabulary of which a chunk is shortest.
TEST(LinearDivergence, EqualsTheReference) {
  for (const auto& [rows, width, vocab] :
       std::vector<std::array<int64_t, 3>>{{7, 16, 33}, {1, 8, 5}, {70, 12, 70000}}) {
    const Tensors inputs{drawn({rows, width}, 1), drawn({vocab, width}, 2)};
    const at::Tensor taught = drawn({rows, width + 3}, 3), head = drawn({vocab, width + 3}, 4);
    const at::Tensor labels = labels_of(rows);
    for (const char* kind : {"forward", "reverse", "middle"}) {
      for (const double temperature : {1.0, 2.5}) {
        for (const double cap : {0.0, 3.0}) {
          const Divergence divergence{kind, temperature, cap, 2 * cap};
          const auto fast = [&](const Tensors& x) {
            return linear_divergence({x[0], weight_of(x[1])}, {taught, weight_of(head)}, labels,
                                     kScale, divergence);
          };
          const auto plain = [&](const Tensors& x) {
            return reference::linear_divergence(x[0], x[1], taught, head, labels, kScale,
                                                divergence);
          };
          const Outcome expected = outcome(plain, inputs);
          expect_close(outcome(fast, inputs), expected, 5e-5);
          EXPECT_LE(distance(fast(inputs), expected.output), 5e-5);  // and without gradients
        }
      }
    }
  }
}

TEST(LinearDivergence, OfTheSameModelIsNothing) {
  const at::Tensor x = drawn({4, 8}, 1), head = drawn({9, 8}, 2);
  for (const char* kind : {"forward", "reverse", "middle"}) {
    const at::Tensor found =
        linear_divergence({x, weight_of(head)}, {x, weight_of(head)}, labels_of(4), 1.0, {kind});
    EXPECT_NEAR(found.item<double>(), 0.0, 1e-5) << kind;
  }
}

TEST(LinearDivergence, RefusesWhatDoesNotFit) {
  const at::Tensor x = drawn({4, 8}, 1), head = drawn({9, 8}, 2), other = drawn({10, 8}, 3);
  const auto run = [&](const at::Tensor& theirs, const Divergence& divergence) {
    return linear_divergence({x, weight_of(head)}, {x, weight_of(theirs)}, labels_of(4), 1.0,
                             divergence);
  };
  EXPECT_THROW(run(other, {}), core::ConfigError);
  EXPECT_THROW(run(head, {"sideways"}), core::ConfigError);
  EXPECT_THROW(run(head, {"forward", 0.0}), core::ConfigError);
}

}  // namespace
}  // namespace omnima::ops
