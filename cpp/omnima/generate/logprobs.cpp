#include "omnima/generate/logprobs.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "omnima/kernels/cpu/logits.h"

namespace omnima::generate {

Logprobs::Logprobs(std::span<const float> logits, std::int64_t count) {
  const auto& table = kernels::logit_kernels();
  const float most = table.largest(logits.data(), std::ssize(logits));
  std::vector<float> weights(logits.size());
  const double sum = table.softmax_weights(logits.data(), most, weights.data(), std::ssize(logits));
  total_ = static_cast<float>(most + std::log(sum));
  std::vector<std::int64_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto kept = order.begin() + std::min(count, std::ssize(logits));
  const auto likelier = [&](std::int64_t a, std::int64_t b) {
    const float x = logits[static_cast<std::size_t>(a)], y = logits[static_cast<std::size_t>(b)];
    return x > y || (x == y && a < b);
  };
  if (count > 0) std::partial_sort(order.begin(), kept, order.end(), likelier);
  for (auto id = order.begin(); id != kept; ++id) {
    top_.emplace_back(*id, logits[static_cast<std::size_t>(*id)] - total_);
  }
}

TokenLogprob Logprobs::of(float logit) const { return {logit - total_, top_}; }

}  // namespace omnima::generate
