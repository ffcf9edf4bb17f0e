#include "omnima/data/loader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <thread>

#include "omnima/core/error.h"
#include "omnima/data/permutation.h"
#include "shard_fixture.h"

namespace omnima::data {
namespace {

class LoaderTest : public ShardTest {
 protected:
  LoaderOptions options(std::int64_t rows, std::int64_t time) {
    LoaderOptions options;
    options.shards = {shard({3, 5, 2}), shard({7, 1, 1, 4})};
    options.rows = rows;
    options.time = time;
    options.seed = 11;
    options.end_id = kEnd;
    options.start_id = kStart;
    return options;
  }
};

TEST(Permutation, VisitsEveryIndexOnceForAnyCountAndKey) {
  for (const std::uint64_t count : {1, 2, 3, 5, 16, 17, 1000}) {
    for (const std::uint64_t key : {0, 1, 77}) {
      const Permutation permutation(count, key);
      std::set<std::uint64_t> seen;
      for (std::uint64_t i = 0; i < count; ++i) {
        const std::uint64_t value = permutation(i);
        EXPECT_LT(value, count);
        seen.insert(value);
      }
      EXPECT_EQ(seen.size(), count);
    }
  }
}

TEST(Packing, KeepsDocumentsWholeAndCutsLongOnes) {
  const std::vector<std::uint64_t> ends = {3, 9, 11, 30};
  const PackedRows packed = pack_documents(ends, 8);
  std::uint64_t first = 0;
  std::uint64_t total = 0;
  for (const std::uint64_t end : packed.row_ends) {
    std::uint32_t length = 0;
    for (; first < end; ++first) length += packed.stretches[first].length;
    EXPECT_LE(length, 8);
    total += length;
  }
  EXPECT_EQ(total, 30);
  EXPECT_EQ(std::ranges::count_if(packed.stretches, &Stretch::begins_document), 4);
}

TEST(Packing, ClosesTheFullestOfManyOpenRows) {
  std::vector<std::uint64_t> ends;
  for (std::uint64_t i = 1; i <= 100; ++i) ends.push_back(5 * i);
  EXPECT_EQ(pack_documents(ends, 8).row_ends.size(), 100);
}

TEST_F(LoaderTest, OtherObjectivesChangeRowsThatAPositionDecides) {
  for (const char* name : {"masked", "span"}) {
    for (const bool sequential : {false, true}) {
      LoaderOptions plain = options(2, 8);
      plain.sequential = sequential;
      plain.objective.name = name;
      plain.objective.vocab_size = 100;
      plain.objective.mask_id = 99;
      plain.objective.kept = {kEnd, kStart};
      plain.objective.sentinels = {90, 91, 92};
      Loader one(plain), two(plain);
      Batch a, b;
      for (int i = 0; i < 2; ++i) one.next(a);
      two.seek(1);
      two.next(b);
      EXPECT_EQ(a.labels, b.labels);
      EXPECT_EQ(a.input_ids, b.input_ids);
      EXPECT_GT(a.targets, 0);
      EXPECT_LT(a.targets, 16);
      const bool marked = std::ranges::any_of(a.input_ids, [](auto id) { return id >= 90; });
      EXPECT_TRUE(marked) << name;
    }
  }
}

TEST_F(LoaderTest, MasksStayWithinDocumentsAndSpansNeedWindows) {
  LoaderOptions packed = options(2, 8);
  packed.packing = "documents";
  packed.objective.name = "masked";
  packed.objective.vocab_size = 100;
  packed.objective.mask_id = 99;
  Loader loader(packed);
  Batch batch;
  loader.next(batch);
  EXPECT_FALSE(batch.segments.empty());
  packed.objective.name = "span";
  packed.objective.sentinels = {90, 91, 92};
  EXPECT_THROW(Loader{packed}, core::ConfigError);
}

TEST_F(LoaderTest, TheThreadChangesNothingAndSeekEqualsRunning) {
  for (const char* packing : {"windows", "documents"}) {
    LoaderOptions plain = options(2, 4);
    plain.packing = packing;
    plain.prefetch = false;
    LoaderOptions threaded = plain;
    threaded.prefetch = true;
    Loader one(plain);
    Loader two(threaded);
    Batch a, b;
    for (int i = 0; i < 12; ++i) {
      one.next(a);
      two.next(b);
      EXPECT_EQ(a.labels, b.labels);
      EXPECT_EQ(a.input_ids, b.input_ids);
      EXPECT_EQ(a.segments, b.segments);
      EXPECT_EQ(a.targets, b.targets);
    }
    EXPECT_EQ(two.position(), 12);
    two.seek(5);
    one.seek(5);
    one.next(a);
    two.next(b);
    EXPECT_EQ(a.labels, b.labels);
  }
}

TEST_F(LoaderTest, PeekTellsWhatNextWillGive) {
  LoaderOptions threaded = options(2, 4);
  threaded.prefetch = true;
  Loader loader(threaded);
  Batch first;
  loader.next(first);
  std::vector<Batch> ahead;
  while (!loader.peek(2, ahead)) std::this_thread::yield();
  EXPECT_EQ(loader.position(), 1);
  for (const Batch& expected : std::vector<Batch>(ahead)) {
    Batch batch;
    loader.next(batch);
    EXPECT_EQ(batch.input_ids, expected.input_ids);
    EXPECT_EQ(batch.labels, expected.labels);
  }
  EXPECT_FALSE(loader.peek(1000, ahead)) << "so many are never made ahead";
  threaded.prefetch = false;
  EXPECT_FALSE(Loader(threaded).peek(1, ahead));
}

TEST_F(LoaderTest, SequentialWindowsGiveTheStreamAndThenThrow) {
  LoaderOptions sequential = options(2, 7);
  sequential.sequential = true;
  Loader loader(sequential);
  std::vector<std::int64_t> labels;
  Batch batch;
  std::int64_t targets = 0;
  for (std::int64_t i = 0; i < loader.plan().batches_per_epoch(); ++i) {
    loader.next(batch);
    targets += batch.targets;
    std::ranges::copy_if(batch.labels, std::back_inserter(labels), [](auto id) { return id >= 0; });
  }
  EXPECT_EQ(targets, 30);
  EXPECT_EQ(std::ranges::count(labels, kEnd), 7);
  std::erase(labels, kEnd);
  EXPECT_TRUE(std::ranges::is_sorted(labels));
  EXPECT_THROW(loader.next(batch), core::DataError);
  EXPECT_THROW(loader.next(batch), core::DataError);
  loader.seek(0);
  loader.next(batch);
  EXPECT_EQ(batch.input_ids[0], kStart);
}

TEST_F(LoaderTest, ReadsAcrossShardsAndRefusesWhatIsBeyond) {
  const std::vector<ShardFiles> shards = {shard({3}), shard({2})};
  const TokenStream stream(shards, 2);
  std::vector<std::int64_t> ids(5);
  stream.read(2, ids);
  EXPECT_EQ(ids, (std::vector<std::int64_t>{12, kEnd, 13, 14, kEnd}));
  EXPECT_THROW(stream.read(3, ids), core::DataError);
  EXPECT_EQ(stream.document_ends(), (std::vector<std::uint64_t>{4, 7}));
}

TEST_F(LoaderTest, DamagedShardsAreRefused) {
  ShardFiles files = shard({3, 2});
  write(files.docs, std::vector<std::uint64_t>{4, 99});
  EXPECT_THROW(TokenStream(std::span(&files, 1), 2).document_ends(), core::DataError);
  files.num_tokens += 1;
  EXPECT_THROW(TokenStream(std::span(&files, 1), 2), core::DataError);
  EXPECT_THROW(TokenStream(std::span(&files, 1), 3), core::ConfigError);
  EXPECT_THROW(TokenStream({}, 2), core::DataError);
}

TEST_F(LoaderTest, RowsAreCutAnewByEpochAndKeepTheirLength) {
  for (const char* packing : {"windows", "documents"}) {
    LoaderOptions usual = options(2, 8);
    usual.packing = packing;
    usual.prefetch = false;
    LoaderOptions cut = usual;
    // Every text token becomes two; a key's lowest bit shows in the second.
    cut.recut = [](std::span<const std::int64_t> ids, std::uint64_t key,
                   std::vector<std::int64_t>& out) {
      for (const std::int64_t id : ids) {
        out.push_back(id);
        if (id != kEnd) out.push_back(1000 + static_cast<std::int64_t>(key & 1));
      }
    };
    Loader before(usual), after(cut), again(cut);
    Batch a, b, c;
    std::set<std::int64_t> marks;
    for (int i = 0; i < 24; ++i) {
      before.next(a);
      after.next(b);
      again.seek(i);
      again.next(c);
      EXPECT_EQ(b.labels, c.labels);
      EXPECT_EQ(b.labels.size(), a.labels.size());
      for (int row = 0; row < 2; ++row) {
        const auto labels = std::span(b.labels).subspan(8 * row, 8);
        const auto ids = std::span(b.input_ids).subspan(8 * row, 8);
        EXPECT_EQ(labels[0], a.labels[8 * row]);
        EXPECT_EQ(ids[0], a.input_ids[8 * row]);
        for (int t = 1; t < 8; ++t) {
          if (labels[t] >= 1000) marks.insert(labels[t]);
          if (labels[t] < 0) continue;
          EXPECT_EQ(ids[t], labels[t - 1] == kEnd ? kStart : labels[t - 1]);
          if (!b.segments.empty()) {
            EXPECT_EQ(b.segments[8 * row + t] - b.segments[8 * row + t - 1],
                      labels[t - 1] == kEnd ? 1 : 0);
          }
        }
      }
    }
    EXPECT_EQ(marks.size(), 2u);
    cut.recut = [](auto, auto, auto&) {};
    Loader none(cut);
    none.next(b);
    EXPECT_EQ(b.targets, 0);
  }
}

}  // namespace
}  // namespace omnima::data
