// Filters over the logits, then a draw from what is left.
#include "omnima/generate/sampler.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>

#include "omnima/core/error.h"
#include "omnima/core/mix.h"
#include "omnima/kernels/cpu/logits.h"

namespace omnima::generate {
namespace {

constexpr float kDropped = -std::numeric_limits<float>::infinity();

float largest(std::span<const float> logits) {
  return kernels::logit_kernels().largest(logits.data(), std::ssize(logits));
}

// Bands of logits for top-p, counted down from the largest; the last one has no end.
constexpr std::size_t kBands = 1024;
constexpr float kBandsPerUnit = 64;

// Leaves those whose bit is set.
void drop_others(std::span<float> logits, std::span<const std::int32_t> allowed) {
  bool any = false;
  for (std::size_t id = 0; id < logits.size(); ++id) {
    if (static_cast<std::uint32_t>(allowed[id / 32]) >> (id % 32) & 1u) {
      any = true;
    } else {
      logits[id] = kDropped;
    }
  }
  core::require<core::ConfigError>(any,
                                   "No token of the vocabulary may follow here: the text's "
                                   "grammar asks for characters that no token writes.");
}

}  // namespace

double uniform(std::uint64_t seed, std::uint64_t step) {
  return static_cast<double>(core::mix(seed, core::mix(~step)) >> 11) * 0x1p-53;
}

Sampler::Sampler(const GenerateOptions& options, std::uint64_t seed, std::int64_t vocab_size)
    : options_(options), seed_(seed) {
  const auto vocab = static_cast<std::size_t>(vocab_size);
  if (options.repetition_penalty != 1.0) seen_.resize(vocab);
  if (options.frequency_penalty != 0 || options.presence_penalty != 0) times_.resize(vocab);
}

void Sampler::saw(std::int64_t id) {
  if (!seen_.empty()) seen_[static_cast<std::size_t>(id)] = true;
}

void Sampler::wrote(std::int64_t id) {
  saw(id);
  if (!times_.empty()) ++times_[static_cast<std::size_t>(id)];
}

void Sampler::follow(const Sampler& other) {
  step_ = other.step_;
  seen_ = other.seen_;
  times_ = other.times_;
}

void Sampler::penalize(std::span<float> logits) const {
  for (const auto& [id, bias] : options_.logit_bias) {
    // Ids that the model has to spare are not among the logits.
    if (id < std::ssize(logits)) logits[static_cast<std::size_t>(id)] += static_cast<float>(bias);
  }
  const auto penalty = static_cast<float>(options_.repetition_penalty);
  for (std::size_t id = 0; id < std::min(seen_.size(), logits.size()); ++id) {
    if (seen_[id]) logits[id] = logits[id] < 0 ? logits[id] * penalty : logits[id] / penalty;
  }
  const auto frequency = static_cast<float>(options_.frequency_penalty);
  const auto presence = static_cast<float>(options_.presence_penalty);
  for (std::size_t id = 0; id < std::min(times_.size(), logits.size()); ++id) {
    if (times_[id] > 0) logits[id] -= frequency * times_[id] + presence;
  }
}

void Sampler::process(std::span<float> logits) {
  penalize(logits);
  if (options_.temperature == 0) return;
  if (options_.temperature != 1) {
    const auto temperature = static_cast<float>(options_.temperature);
    constexpr float kMost = std::numeric_limits<float>::max();  // a tiny temperature ends here
    for (float& logit : logits) logit = std::clamp(logit / temperature, -kMost, kMost);
  }
  if (options_.top_k > 0) keep_top_k(logits);
  if (options_.top_p < 1) keep_top_p(logits);
  if (options_.min_p > 0) {
    const double least = largest(logits) + std::log(options_.min_p);
    for (float& logit : logits) logit = logit < least ? kDropped : logit;
  }
}

std::int64_t Sampler::next(std::span<float> logits, std::span<const std::int32_t> allowed) {
  if (!kernels::logit_kernels().all_finite(logits.data(), std::ssize(logits))) refuse(logits);
  if (!allowed.empty()) drop_others(logits, allowed);
  process(logits);
  const std::int64_t id =
      options_.temperature == 0
          ? std::find(logits.begin(), logits.end(), largest(logits)) - logits.begin()
          : draw(logits);
  ++step_;
  wrote(id);
  return id;
}

void Sampler::refuse(std::span<const float> logits) const {
  for (std::size_t id = 0; id < logits.size(); ++id) {
    core::require<core::NonFiniteError>(
        std::isfinite(logits[id]), "The model's logit of token ", id, " is ", logits[id],
        " at new token ", step_ + 1,
        ": its weights hold values that are not finite. Load an earlier checkpoint.");
  }
}

double Sampler::weigh(std::span<const float> logits) {
  weights_.resize(logits.size());
  return kernels::logit_kernels().softmax_weights(logits.data(), largest(logits), weights_.data(),
                                                  std::ssize(logits));
}

std::int64_t Sampler::draw(std::span<const float> logits) {
  const double target = uniform(seed_, step_) * weigh(logits);
  double passed = 0;
  std::int64_t last = 0;
  for (std::size_t id = 0; id < weights_.size(); ++id) {
    if (weights_[id] == 0) continue;
    last = static_cast<std::int64_t>(id);
    passed += weights_[id];
    if (passed > target) break;
  }
  return last;
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

// A token stays while those above it hold less than top_p; the likeliest always stays. Bands of
// nearly equal logits are weighed first, so that only the band where the share is reached is
// sorted.
void Sampler::keep_top_p(std::span<float> logits) {
  const float most = largest(logits);
  const double share = options_.top_p * weigh(logits);
  bands_.resize(logits.size());
  std::array<double, kBands> held{};
  for (std::size_t id = 0; id < logits.size(); ++id) {
    const float band = std::min(kBands - 1.0f, (most - logits[id]) * kBandsPerUnit);
    bands_[id] = static_cast<std::int32_t>(band);
    held[static_cast<std::size_t>(bands_[id])] += weights_[id];
  }
  double above = 0;
  std::int32_t last = 0;
  while (last + 1 < static_cast<std::int32_t>(kBands) &&
         above + held[static_cast<std::size_t>(last)] < share) {
    above += held[static_cast<std::size_t>(last++)];
  }
  order_.clear();
  order_.reserve(logits.size());  // once: no later token finds a larger band
  for (std::size_t id = 0; id < logits.size(); ++id) {
    if (bands_[id] == last) order_.emplace_back(logits[id], id);
    if (bands_[id] > last) logits[id] = kDropped;
  }
  std::sort(order_.begin(), order_.end(), std::greater<>());
  for (std::size_t rank = 0; rank < order_.size(); ++rank) {
    const auto& [logit, id] = order_[rank];
    if (rank > 0 && above >= share) logits[id] = kDropped;
    above += weights_[id];
  }
}

}  // namespace omnima::generate
