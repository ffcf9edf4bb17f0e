// What the tests of operators share: drawn tensors, weights, gradients, numerical slopes.
#pragma once

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "omnima/core/error.h"
#include "omnima/ops/weight.h"

namespace omnima::ops {

using Tensors = std::vector<at::Tensor>;
using Operator = std::function<at::Tensor(const Tensors&)>;

inline at::Tensor drawn(const std::vector<int64_t>& sizes, std::uint64_t seed, double std = 1.0) {
  at::Tensor values = at::empty(sizes, at::kFloat);
  auto generator = at::detail::createCPUGenerator(seed);
  return values.normal_(0.0, std, generator);
}

inline at::Tensor leaf(const at::Tensor& x) { return x.detach().clone().set_requires_grad(true); }

// A weight of one leaf; computing with `compute` (the leaf's own values unless given).
inline Weight weight_of(const at::Tensor& leaf, const at::Tensor& compute = {}) {
  return {{leaf}, compute.defined() ? compute : leaf.detach(), {}};
}

// Operators run on the plain ATen meaning while it lives.
class ReferenceMode {
 public:
  ReferenceMode() { ::setenv("OMNIMA_REFERENCE", "1", 1); }
  ~ReferenceMode() { ::unsetenv("OMNIMA_REFERENCE"); }
  ReferenceMode(const ReferenceMode&) = delete;
  ReferenceMode& operator=(const ReferenceMode&) = delete;
};

// The output and the gradients of sum(output * dy), dy being drawn.
struct Outcome {
  at::Tensor output;
  Tensors gradients;
};

inline Outcome outcome(const Operator& run, const Tensors& inputs) {
  Tensors leaves;
  for (const auto& x : inputs) leaves.push_back(leaf(x));
  const at::Tensor y = run(leaves);
  torch::autograd::backward({y}, {drawn(y.sizes().vec(), 99).to(y.scalar_type())});
  Outcome result{y.detach(), {}};
  for (const auto& x : leaves) result.gradients.push_back(x.grad());
  return result;
}

// The largest difference as a share of the largest expected value (or of 1).
inline double distance(const at::Tensor& actual, const at::Tensor& expected) {
  if (!actual.defined() || actual.sizes() != expected.sizes()) return INFINITY;
  const at::Tensor a = actual.to(at::kDouble), b = expected.to(at::kDouble);
  if (a.numel() == 0) return 0;
  return (a - b).abs().max().item<double>() / std::max(1.0, b.abs().max().item<double>());
}

inline void expect_close(const Outcome& actual, const Outcome& expected, double tolerance) {
  EXPECT_LE(distance(actual.output, expected.output), tolerance) << "the output";
  ASSERT_EQ(actual.gradients.size(), expected.gradients.size());
  for (std::size_t i = 0; i < expected.gradients.size(); ++i) {
    EXPECT_LE(distance(actual.gradients[i], expected.gradients[i]), tolerance) << "gradient " << i;
  }
}

// The fast version against the plain ATen meaning, in float32 and with inputs in bfloat16: there
// against the float32 meaning of the same rounded values.
inline void expect_reference(const Operator& fast, const Operator& plain, const Tensors& inputs,
                             double tolerance = 1e-5, double bfloat16_tolerance = 2e-2) {
  expect_close(outcome(fast, inputs), outcome(plain, inputs), tolerance);
  Tensors narrow, wide;
  for (const auto& x : inputs) {
    narrow.push_back(x.dim() > 1 ? x.to(at::kBFloat16) : x);  // vectors stay float32
    wide.push_back(narrow.back().to(at::kFloat));
  }
  const Outcome half = outcome(fast, narrow);
  EXPECT_EQ(half.output.scalar_type(), at::kBFloat16);
  expect_close(half, outcome(plain, wide), bfloat16_tolerance);
}

// Every gradient of sum(output * dy) against central differences of fourth order.
inline void expect_slopes(const Operator& run, const Tensors& inputs, double tolerance = 2e-3) {
  const Outcome expected = outcome(run, inputs);
  const at::Tensor dy = drawn(expected.output.sizes().vec(), 99).to(at::kDouble);
  for (std::size_t which = 0; which < inputs.size(); ++which) {
    const at::Tensor& gradient = expected.gradients[which];
    ASSERT_TRUE(gradient.defined()) << "input " << which << " has no gradient";
    const at::Tensor flat = gradient.to(at::kFloat).contiguous().view({-1});
    for (int64_t i = 0; i < flat.numel(); ++i) {
      const auto at = [&](double move) {
        Tensors moved;
        for (const auto& x : inputs) moved.push_back(x.clone());
        moved[which].view({-1}).data_ptr<float>()[i] += static_cast<float>(move);
        return (run(moved).to(at::kDouble) * dy).sum().item<double>();
      };
      const double h = 1e-2, near = at(h) - at(-h), far = at(2 * h) - at(-2 * h);
      const double slope = (8 * near - far) / (12 * h), own = flat.const_data_ptr<float>()[i];
      EXPECT_NEAR(own, slope, tolerance * std::max(1.0, std::abs(slope)))
          << "input " << which << ", element " << i;
    }
  }
}

// The message of the error that `run` throws, or "" where it throws none of ours.
template <class F>
std::string message_of(F run) {
  try {
    run();
  } catch (const core::Error& error) {
    return error.what();
  }
  return "";
}

inline bool holds(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace omnima::ops
