// Filters over the logits, then a draw from what is left.
#include "omnima/generate/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "omnima/core/error.h"

namespace omnima::generate {
namespace {

constexpr float kDropped = -std::numeric_limits<float>::infinity();

// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every bit of the input moves all others.
std::uint64_t mix(std::uint64_t bits) {
  bits += 0x9e3779b97f4a7c15u;
  bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9u;
  bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebu;
  return bits ^ (bits >> 31);
}

float largest(std::span<const float> logits) {
  float most = kDropped;
  for (const float logit : logits) most = std::max(most, logit);
  return most;
}

double total_weight(std::span<const float> logits, float most) {
  double total = 0;
  for (const float logit : logits) {
    if (logit != kDropped) total += std::exp(logit - most);
  }
  return total;
}

std::int64_t draw(std::span<const float> logits, double share) {
  const float most = largest(logits);
  const double target = share * total_weight(logits, most);
  double passed = 0;
  std::int64_t last = 0;
  for (std::size_t id = 0; id < logits.size(); ++id) {
    if (logits[id] == kDropped) continue;
    last = static_cast<std::int64_t>(id);
    passed += std::exp(logits[id] - most);
    if (passed > target) break;
  }
  return last;
}

}  // namespace

double uniform(std::uint64_t seed, std::uint64_t step) {
  return static_cast<double>(mix(mix(seed) ^ mix(~step)) >> 11) * 0x1p-53;
}

Sampler::Sampler(const GenerateOptions& options, std::uint64_t seed, std::int64_t vocab_size)
    : options_(options), seed_(seed) {
  if (options.repetition_penalty != 1.0) seen_.resize(static_cast<std::size_t>(vocab_size));
}

void Sampler::saw(std::int64_t id) {
  if (!seen_.empty()) seen_[static_cast<std::size_t>(id)] = true;
}

void Sampler::process(std::span<float> logits) {
  const auto penalty = static_cast<float>(options_.repetition_penalty);
  for (std::size_t id = 0; id < seen_.size(); ++id) {
    if (seen_[id]) logits[id] = logits[id] < 0 ? logits[id] * penalty : logits[id] / penalty;
  }
  if (options_.temperature == 0) return;
  if (options_.temperature != 1) {
    const auto temperature = static_cast<float>(options_.temperature);
    for (float& logit : logits) logit /= temperature;
  }
  if (options_.top_k > 0) keep_top_k(logits);
  if (options_.top_p < 1) keep_top_p(logits);
  if (options_.min_p > 0) {
    const float most = largest(logits);
    for (float& logit : logits) {
      if (std::exp(static_cast<double>(logit) - most) < options_.min_p) logit = kDropped;
    }
  }
}

std::int64_t Sampler::next(std::span<float> logits) {
  for (std::size_t id = 0; id < logits.size(); ++id) {
    core::require<core::NonFiniteError>(
        std::isfinite(logits[id]), "The model's logit of token ", id, " is ", logits[id],
        " at new token ", step_ + 1,
        ": its weights hold values that are not finite. Load an earlier checkpoint.");
  }
  process(logits);
  const std::int64_t id = options_.temperature == 0
                              ? std::max_element(logits.begin(), logits.end()) - logits.begin()
                              : draw(logits, uniform(seed_, step_));
  ++step_;
  saw(id);
  return id;
}

// Tokens as likely as the k-th stay, too.
void Sampler::keep_top_k(std::span<float> logits) {
  const auto k = static_cast<std::size_t>(options_.top_k);
  if (k >= logits.size()) return;
  sorted_.assign(logits.begin(), logits.end());
  std::nth_element(sorted_.begin(), sorted_.begin() + (k - 1), sorted_.end(), std::greater<>());
  const float least = sorted_[k - 1];
  for (float& logit : logits) {
    if (logit < least) logit = kDropped;
  }
}

// A token stays while those above it hold less than top_p; the likeliest always stays.
void Sampler::keep_top_p(std::span<float> logits) {
  const float most = largest(logits);
  const double total = total_weight(logits, most);
  heap_.clear();
  for (std::size_t id = 0; id < logits.size(); ++id) {
    if (logits[id] != kDropped) heap_.emplace_back(logits[id], static_cast<std::int64_t>(id));
  }
  std::fill(logits.begin(), logits.end(), kDropped);
  std::make_heap(heap_.begin(), heap_.end());
  double above = 0;
  do {
    std::pop_heap(heap_.begin(), heap_.end());
    const auto [logit, id] = heap_.back();
    heap_.pop_back();
    logits[static_cast<std::size_t>(id)] = logit;
    above += std::exp(logit - most) / total;
  } while (above < options_.top_p && !heap_.empty());
}

}  // namespace omnima::generate
