#include "omnima/generate/prompt_cache.h"

#include <algorithm>
#include <iterator>
#include <numeric>

#include "omnima/core/error.h"

namespace omnima::generate {

PromptCache::PromptCache(std::int64_t max_bytes) : max_bytes_(max_bytes) {
  core::require<core::ConfigError>(max_bytes > 0, "A prompt cache of ", max_bytes,
                                   " bytes remembers nothing: give it some.");
}

PromptCache::Found PromptCache::find(std::uint64_t weights, std::span<const std::int64_t> ids) {
  const std::lock_guard lock(mutex_);
  auto best = kept_.end();
  std::int64_t most = 0;
  for (auto each = kept_.begin(); each != kept_.end(); ++each) {
    if (each->weights != weights) continue;
    const auto [end, _] = std::ranges::mismatch(each->ids, ids);
    const std::int64_t shared = end - each->ids.begin();
    if (shared > most) best = each, most = shared;
  }
  if (best == kept_.end()) return {};
  kept_.splice(kept_.begin(), kept_, best);
  return {best->state, most};
}

void PromptCache::keep(std::uint64_t weights, Ids ids, std::unique_ptr<SequenceState> state) {
  const std::lock_guard lock(mutex_);
  kept_.remove_if([&](const Kept& each) {
    return each.weights == weights && each.ids.size() <= ids.size() &&
           std::ranges::equal(each.ids, std::span(ids).first(each.ids.size()));
  });
  if (state->bytes() > max_bytes_) return;
  kept_.push_front({weights, std::move(ids), std::move(state)});
  while (held() > max_bytes_) kept_.pop_back();
}

void PromptCache::clear() {
  const std::lock_guard lock(mutex_);
  kept_.clear();
}

std::int64_t PromptCache::held() const {
  return std::accumulate(
      kept_.begin(), kept_.end(), std::int64_t{0},
      [](std::int64_t sum, const Kept& each) { return sum + each.state->bytes(); });
}

std::int64_t PromptCache::bytes() const {
  const std::lock_guard lock(mutex_);
  return held();
}

std::int64_t PromptCache::texts() const {
  const std::lock_guard lock(mutex_);
  return std::ssize(kept_);
}

}  // namespace omnima::generate
