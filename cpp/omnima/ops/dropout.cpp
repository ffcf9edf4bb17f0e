#include "omnima/ops/dropout.h"

#include <ATen/Context.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mul.h>

#include <cmath>

#include "omnima/core/mix.h"
#include "omnima/kernels/cpu/dropout.h"
#include "omnima/ops/dispatch.h"
#include "omnima/ops/saved.h"

namespace omnima::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kBlock = 1 << 14;  // numbers that share a key

struct Rule {
  double p;
  std::uint64_t seed;
};

at::Tensor dropped(const at::Tensor& input, const Rule& rule, const char* scope_name) {
  const core::Scope scope(scope_name, 0, 2 * bytes_of(input));
  const at::Tensor x = input.contiguous(), y = at::empty_like(x);
  const auto threshold = static_cast<std::uint32_t>(std::ldexp(rule.p, 32));
  const auto scale = static_cast<float>(1.0 / (1.0 - rule.p));
  const int64_t count = x.numel(), blocks = (count + kBlock - 1) / kBlock;
  by_dtype(x, "dropout", [&]<class T>(T*) {
    at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block) {
        const int64_t first = block * kBlock;
        kernels::dropout_kernels<T>().apply(
            data<T>(x) + first, data<T>(y) + first, std::min(kBlock, count - first),
            {core::mix(rule.seed, static_cast<std::uint64_t>(block)), threshold, scale});
      }
    });
  });
  return y;
}

// Keeps no mask: backward draws it again.
struct DropoutFunction : torch::autograd::Function<DropoutFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const Rule& rule) {
    keep(context, rule);
    return dropped(x, rule, "dropout.forward");
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    return {dropped(grads[0], kept<Rule>(context), "dropout.backward"), at::Tensor()};
  }
};

}  // namespace

at::Tensor dropout(const at::Tensor& x, double p, std::uint64_t seed) {
  core::require(p >= 0 && p < 1, "dropout is ", p, ", but must be at least 0 and below 1.");
  if (p == 0.0) return x;
  if (x.is_cpu() && x.scalar_type() == at::kHalf) {
    return dropout(x.to(at::kFloat), p, seed).to(at::kHalf);
  }
  if (x.is_cpu()) return DropoutFunction::apply(x, Rule{p, seed});
  at::Generator generator = at::globalContext().defaultGenerator(x.device()).clone();
  generator.set_current_seed(seed);
  at::Tensor mask = at::empty_like(x.detach());
  mask.bernoulli_(1.0 - p, generator).div_(1.0 - p);
  return x.mul(mask);
}

}  // namespace omnima::ops
