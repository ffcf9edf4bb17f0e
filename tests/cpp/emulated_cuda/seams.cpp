// CPU versions of what only a device can do: see ops/cuda/seams.h. Flash attention is the softmax
// written out, document by document.
#include "omnima/ops/cuda/seams.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/softmax.h>

#include <cmath>

#include "emulated_cuda/seams.h"

namespace omnima::ops::cuda {
namespace {

bool cpu_is_device = false;

struct Probabilities {
  at::Tensor q, k, v, p;  // float32 [heads, time, …] of one document
  int64_t group;
  double scale;
};

// One document: q [time, heads, head_dim], k and v with fewer heads.
Probabilities probabilities(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const int64_t group = q.size(1) / k.size(1), time = q.size(0);
  const auto wide = [&](const at::Tensor& x, int64_t times) {
    return x.to(at::kFloat).repeat_interleave(times, 1).transpose(0, 1);
  };
  Probabilities result{wide(q, 1), wide(k, group), wide(v, group),
                       {},         group,          1.0 / std::sqrt(static_cast<double>(q.size(2)))};
  const at::Tensor hidden = at::ones({time, time}, at::kBool).triu(1);
  const at::Tensor scores = at::matmul(result.q, result.k.transpose(1, 2)) * result.scale;
  result.p = at::softmax(scores.masked_fill(hidden, -INFINITY), -1);
  return result;
}

// f(first, count) for each document of the flattened tokens.
template <class F>
void for_documents(const Flash& flash, F f) {
  if (!flash.documents.starts.defined()) {
    for (int64_t row = 0; row < flash.q.size(0); ++row) f(row * flash.q.size(1), flash.q.size(1));
    return;
  }
  const auto* starts = flash.documents.starts.const_data_ptr<int32_t>();
  for (int64_t i = 0; i + 1 < flash.documents.starts.numel(); ++i) {
    TORCH_CHECK(starts[i + 1] - starts[i] <= flash.documents.longest);
    f(starts[i], starts[i + 1] - starts[i]);
  }
}

at::Tensor tokens(const at::Tensor& x) { return x.dim() == 4 ? x.flatten(0, 1) : x; }

}  // namespace

AsDevice::AsDevice() { cpu_is_device = true; }
AsDevice::~AsDevice() { cpu_is_device = false; }

bool on_device(const at::Tensor&) { return cpu_is_device; }
kernels::cuda::Stream current_stream(const at::Device&) { return nullptr; }
void check_launches() {}

void add_outer(const at::Tensor& grad, const at::Tensor& dy, const at::Tensor& x) {
  grad.add_(at::mm(dy.to(at::kFloat).t(), x.to(at::kFloat)));
}

bool flash_fits(const at::Tensor& qkv, int64_t head_dim) {
  return qkv.scalar_type() == at::kBFloat16 && head_dim % 8 == 0;
}

void flash_forward(Flash& flash) {
  flash.out = at::empty_like(flash.q, at::MemoryFormat::Contiguous);
  flash.logsumexp = flash.rng_state = flash.unused = flash.out;
  const at::Tensor q = tokens(flash.q), k = tokens(flash.k), v = tokens(flash.v);
  for_documents(flash, [&](int64_t first, int64_t count) {
    const auto part = [&](const at::Tensor& x) { return x.narrow(0, first, count); };
    const auto one = probabilities(part(q), part(k), part(v));
    part(tokens(flash.out)).copy_(at::matmul(one.p, one.v).transpose(0, 1));
  });
}

std::vector<at::Tensor> flash_backward(const Flash& flash, const at::Tensor& dout) {
  const auto like = [](const at::Tensor& x) {
    return at::empty_like(x, at::MemoryFormat::Contiguous);
  };
  const at::Tensor dq = like(flash.q), dk = like(flash.k), dv = like(flash.v);
  const at::Tensor q = tokens(flash.q), k = tokens(flash.k), v = tokens(flash.v);
  for_documents(flash, [&](int64_t first, int64_t count) {
    const auto part = [&](const at::Tensor& x) { return tokens(x).narrow(0, first, count); };
    const auto one = probabilities(part(q), part(k), part(v));
    const at::Tensor dy = part(dout).to(at::kFloat).transpose(0, 1);
    const at::Tensor dp = at::matmul(dy, one.v.transpose(1, 2));
    const at::Tensor ds = one.p * (dp - (dp * one.p).sum(-1, true)) * one.scale;
    const auto narrow = [&](const at::Tensor& x) {  // query heads of a group are summed
      return x.transpose(0, 1).unflatten(1, {k.size(1), one.group}).sum(2);
    };
    part(dq).copy_(at::matmul(ds, one.k).transpose(0, 1));
    part(dk).copy_(narrow(at::matmul(ds.transpose(1, 2), one.q)));
    part(dv).copy_(narrow(at::matmul(one.p.transpose(1, 2), dy)));
  });
  return {dq, dk, dv};
}

}  // namespace omnima::ops::cuda
