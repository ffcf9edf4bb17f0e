#include "omnima/ops/dropout.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mul.h>

namespace omnima::ops {

at::Tensor dropout(const at::Tensor& x, double p, std::uint64_t seed) {
  if (p == 0.0) return x;
  at::Generator generator = at::globalContext().defaultGenerator(x.device()).clone();
  generator.set_current_seed(seed);
  at::Tensor mask = at::empty_like(x.detach());
  mask.bernoulli_(1.0 - p, generator).div_(1.0 - p);
  return x.mul(mask);
}

}  // namespace omnima::ops
