// Copies of a model's matrices of bfloat16 in 12 bits a number, without loss: what writes few
// sequences is paced by the memory, and reads them sooner. They are made by the way, once the
// matrices were read often, and used as long as these stay what they were.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "omnima/generate/team.h"
#include "omnima/quant/compact.h"

namespace omnima::generate {

struct CompactOptions {
  std::int64_t reads = 64;              // of all matrices, before copies are made; 0: never
  std::int64_t least_bytes = 12 << 20;  // of all matrices: fewer stay in the caches of cores
  std::int64_t steps = 32;              // over which the making is spread
  // As the variable OMNIMA_COMPACT_AFTER asks: a number of reads, whatever the size. Throws
  // ConfigError where it is none.
  static CompactOptions from_environment();
};

// Of one model; calls from several threads do not disturb each other.
class CompactCopies {
 public:
  // One a matrix, in their order; null: it stays as it is.
  using Set = std::vector<std::shared_ptr<const quant::CompactMatrix>>;

  // The matrices are all of bfloat16, in the order in which a token reads them.
  CompactCopies(std::vector<quant::Matrix> matrices, const CompactOptions& options);

  // When a call begins: the copies, where there are any of the matrices as they are now. Copies of
  // what they were before are let go.
  std::shared_ptr<const Set> current();
  // The same for a text that begins amid others: what torch has written is noticed at once, other
  // changes as soon as some time has passed, since the look costs a millisecond.
  std::shared_ptr<const Set> still_current();
  // Behind a step that read `bytes` of the matrices: counts them, and makes some copies where it is
  // time to. The copies once all are made.
  std::shared_ptr<const Set> after_step(std::int64_t bytes, Team& team);

 private:
  using Clock = std::chrono::steady_clock;

  std::uint64_t writes() const;
  std::uint64_t fingerprint() const;
  bool makes_some(Team& team);

  std::vector<quant::Matrix> matrices_;
  CompactOptions options_;
  std::int64_t bytes_ = 0;  // of all
  std::mutex mutex_;        // of what follows
  std::optional<std::uint64_t> made_of_;
  std::uint64_t writes_ = 0;  // of torch, then
  Clock::time_point looked_;
  std::int64_t read_ = 0;  // bytes, since they are what made_of_ says
  Set making_;
  std::optional<quant::PackedMemory> memory_;
  std::shared_ptr<const Set> made_;
};

}  // namespace omnima::generate
