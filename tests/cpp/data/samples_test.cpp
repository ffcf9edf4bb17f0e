#include "omnima/data/samples.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "omnima/core/error.h"

namespace omnima::data {
namespace {

// Samples of 2 to 9 tokens; token k of sample s is 100 * s + k, and the odd ones are learned.
SampleOptions samples(std::int64_t count, bool packed, std::int64_t rows = 2,
                      std::int64_t time = 10) {
  SampleOptions options;
  options.rows = rows;
  options.time = time;
  options.packed = packed;
  for (std::int64_t s = 0; s < count; ++s) {
    for (std::int64_t k = 0; k < 2 + s % 8; ++k) {
      options.ids.push_back(static_cast<std::int32_t>(100 * s + k));
      options.supervised.push_back(k % 2 == 1);
    }
    options.ends.push_back(options.ids.size());
  }
  return options;
}

std::multiset<std::int64_t> labels_of_epoch(const SamplePlan& plan) {
  std::multiset<std::int64_t> found;
  Batch batch;
  for (std::int64_t i = 0; i < plan.batches_per_epoch(); ++i) {
    plan.fill(i, batch);
    for (std::size_t cell = 0; cell < batch.labels.size(); ++cell) {
      if (batch.labels[cell] == -100) continue;
      EXPECT_EQ(batch.labels[cell], batch.input_ids[cell] + 1);
      found.insert(batch.labels[cell]);
    }
  }
  return found;
}

TEST(Samples, PackedAndPaddedRowsHoldTheSameLabels) {
  for (const std::int64_t count : {1, 2, 7, 40}) {
    SampleOptions options = samples(count, true);
    options.sequential = true;
    std::multiset<std::int64_t> wanted;
    for (std::size_t i = 0; i < options.ids.size(); ++i) {
      if (options.supervised[i]) wanted.insert(options.ids[i]);
    }
    EXPECT_EQ(labels_of_epoch(SamplePlan(options)), wanted);
    options.packed = false;
    EXPECT_EQ(labels_of_epoch(SamplePlan(options)), wanted);
  }
}

TEST(Samples, ASegmentIsOneSample) {
  const SamplePlan plan(samples(40, true));
  EXPECT_LT(plan.rows_per_epoch(), 25);
  Batch batch;
  plan.fill(0, batch);
  std::map<std::int32_t, std::set<std::int64_t>> of_segments;
  for (std::int64_t cell = 0; cell < 10; ++cell) {
    if (batch.labels[cell] == -100) continue;
    of_segments[batch.segments[cell]].insert(batch.input_ids[cell] / 100);
  }
  for (const auto& [segment, found] : of_segments) EXPECT_EQ(found.size(), 1u) << segment;
}

TEST(Samples, PaddedRowsAreAsLongAsTheLongestOfTheirBatch) {
  SampleOptions options = samples(8, false, 4);
  options.sequential = true;
  const SamplePlan plan(options);
  Batch batch;
  plan.fill(0, batch);
  EXPECT_EQ(batch.time, 4);
  plan.fill(1, batch);
  EXPECT_EQ(batch.time, 8);
  EXPECT_TRUE(batch.segments.empty());
  EXPECT_THROW(plan.fill(2, batch), core::DataError);
}

TEST(Samples, LooksAheadWithoutMoving) {
  SampleLoader loader(samples(20, true));
  loader.seek(3);
  std::vector<Batch> ahead;
  ASSERT_TRUE(loader.peek(2, ahead));
  EXPECT_EQ(loader.position(), 3);
  Batch batch;
  for (const Batch& seen : ahead) {
    loader.next(batch);
    EXPECT_EQ(batch.input_ids, seen.input_ids);
  }
}

}  // namespace
}  // namespace omnima::data
