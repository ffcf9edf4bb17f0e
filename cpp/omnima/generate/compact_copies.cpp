#include "omnima/generate/compact_copies.h"

#include <charconv>
#include <cstdlib>
#include <string_view>
#include <utility>

#include "omnima/core/available_memory.h"
#include "omnima/core/error.h"
#include "omnima/core/scope.h"
#include "omnima/generate/fingerprint.h"

namespace omnima::generate {
namespace {

constexpr std::chrono::milliseconds kLookAgain{20};

}  // namespace

CompactOptions CompactOptions::from_environment() {
  CompactOptions options;
  const char* asked = std::getenv("OMNIMA_COMPACT_AFTER");
  if (asked == nullptr || *asked == '\0') return options;
  const std::string_view text(asked);
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), options.reads);
  core::require<core::ConfigError>(
      error == std::errc() && end == text.data() + text.size() && options.reads >= 0,
      "OMNIMA_COMPACT_AFTER is \"", text,
      "\"; it is the number of reads after which bfloat16 weights are copied in fewer bits, and 0 "
      "for never. Give a whole number, or unset the variable.");
  options.least_bytes = 0;
  return options;
}

CompactCopies::CompactCopies(std::vector<quant::Matrix> matrices, const CompactOptions& options)
    : matrices_(std::move(matrices)), options_(options) {
  for (const quant::Matrix& matrix : matrices_) bytes_ += matrix.bytes();
  const bool pays = bytes_ > 0 && bytes_ >= options_.least_bytes && kernels::unpacks_in_vectors();
  if (!pays) options_.reads = 0;
}

std::uint64_t CompactCopies::writes() const {
  std::uint64_t sum = 0;  // each count only grows
  for (const quant::Matrix& matrix : matrices_) {
    if (!matrix.blocks.is_inference()) sum += static_cast<std::uint64_t>(matrix.blocks._version());
  }
  return sum;
}

std::uint64_t CompactCopies::fingerprint() const {
  Fingerprint found;
  for (const quant::Matrix& matrix : matrices_) found.add(matrix.blocks);
  return found.value();
}

std::shared_ptr<const CompactCopies::Set> CompactCopies::current() {
  if (options_.reads == 0) return nullptr;
  const core::Scope scope("weights unchanged");
  const std::scoped_lock lock(mutex_);
  writes_ = writes();
  looked_ = Clock::now();
  const std::uint64_t now = fingerprint();
  if (made_of_ != now) {
    made_of_ = now;
    read_ = 0;
    making_.clear();
    memory_.reset();
    made_.reset();
  }
  return made_;
}

std::shared_ptr<const CompactCopies::Set> CompactCopies::still_current() {
  if (options_.reads == 0) return nullptr;
  {
    const std::scoped_lock lock(mutex_);
    if (made_of_ && writes_ == writes() && Clock::now() - looked_ < kLookAgain) return made_;
  }
  return current();
}

std::shared_ptr<const CompactCopies::Set> CompactCopies::after_step(std::int64_t bytes,
                                                                    Team& team) {
  if (options_.reads == 0) return nullptr;
  const std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock.owns_lock()) return nullptr;  // another call makes them
  if (made_) return made_;
  read_ += bytes;
  if (read_ < options_.reads * bytes_) return nullptr;
  // What a copy takes at most; the system should have twice that left.
  if (making_.empty() && core::available_memory() / 2 < bytes_ * 7 / 8) {
    read_ = 0;
    return nullptr;
  }
  if (!makes_some(team)) return nullptr;
  made_ = std::make_shared<const Set>(std::exchange(making_, {}));
  memory_.reset();
  return made_;
}

// True: they are all made.
bool CompactCopies::makes_some(Team& team) {
  const core::Scope scope("compact copies");
  if (!memory_) memory_.emplace();
  const quant::Share share = [&](std::int64_t count, const auto& body) {
    team.run(count, 1, [&](std::int64_t begin, std::int64_t end, int) { body(begin, end); });
  };
  for (std::int64_t some = 0; making_.size() < matrices_.size();) {
    if (some * options_.steps >= bytes_) return false;
    const quant::Matrix& matrix = matrices_[making_.size()];
    some += matrix.bytes();
    making_.push_back(quant::compacted(matrix, *memory_, share));
  }
  return true;
}

}  // namespace omnima::generate
