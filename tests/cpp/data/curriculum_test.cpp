#include "omnima/data/curriculum.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>

#include "omnima/core/error.h"
#include "shard_fixture.h"

namespace omnima::data {
namespace {

CurriculumOptions paced(const std::string& pacing, double start, std::int64_t rows) {
  CurriculumOptions options;
  options.pacing = pacing;
  options.start = start;
  options.rows = rows;
  return options;
}

std::vector<double> rising(int count) {
  std::vector<double> scores(count);
  std::iota(scores.begin(), scores.end(), 0.0);
  return scores;
}

TEST(PacedShare, RisesFromTheStartToAllRows) {
  for (const char* pacing : {"linear", "sqrt", "step", "exponential"}) {
    EXPECT_NEAR(paced_share(pacing, 0.2, 0), 0.2, 1e-12) << pacing;
    EXPECT_NEAR(paced_share(pacing, 0.2, 1), 1.0, 1e-12) << pacing;
    double before = 0;
    for (int i = 0; i <= 100; ++i) {
      const double share = paced_share(pacing, 0.2, i / 100.0);
      EXPECT_GE(share, before) << pacing;
      before = share;
    }
  }
  EXPECT_NEAR(paced_share("linear", 0.2, 0.5), 0.6, 1e-12);
  EXPECT_NEAR(paced_share("sqrt", 0.2, 0.5), std::sqrt(0.52), 1e-12);
  EXPECT_NEAR(paced_share("step", 0.2, 0.5), 0.2 + 0.8 * 2 / 5, 1e-12);
  EXPECT_NEAR(paced_share("exponential", 0.2, 0.5), std::sqrt(0.2), 1e-12);
}

// What the class says, told plainly: a set of rows that are in and have not come in this pass.
TEST(Curriculum, EveryRowIsInWhenItComesAndNoneComesTwiceInAPass) {
  for (const char* pacing : {"linear", "sqrt", "step", "exponential"}) {
    for (const std::int64_t rows : {1, 7, 40, 41, 150}) {
      for (const double start : {0.001, 0.1, 0.5, 1.0}) {
        const Curriculum curriculum(paced(pacing, start, rows), rising(40), 3);
        std::set<std::uint64_t> left;
        std::size_t in = 0;
        ASSERT_GE(curriculum.rows(), rows);
        ASSERT_LT(curriculum.rows(), rows + 40);
        for (std::int64_t place = 0; place < curriculum.rows(); ++place) {
          const double progress = static_cast<double>(place) / static_cast<double>(rows);
          const double share = place < rows ? paced_share(pacing, start, progress) : 1.0;
          const auto allowed = static_cast<std::size_t>(std::ceil(share * 40 - 1e-6));
          for (; in < std::max<std::size_t>(allowed, 1); ++in) left.insert(in);
          if (left.empty()) {
            for (std::size_t row = 0; row < in; ++row) left.insert(row);
          }
          EXPECT_EQ(left.erase(curriculum.row(place)), 1u)
              << pacing << " " << rows << " " << start << " at " << place;
        }
        EXPECT_TRUE(left.empty());
        EXPECT_EQ(in, 40u);
      }
    }
  }
}

TEST(Curriculum, OfOneEpochGivesEveryRowOnceEasyOnesEarlier) {
  for (const char* pacing : {"linear", "sqrt", "step"}) {
    const Curriculum curriculum(paced(pacing, 0.1, 1000), rising(1000), 7);
    if (std::string(pacing) != "step") {  // its fifths let in too little for so many places
      EXPECT_EQ(curriculum.rows(), 1000);
    }
    double early = 0, late = 0;
    for (int i = 0; i < 100; ++i) {
      early += static_cast<double>(curriculum.row(i)) / 100;
      late += static_cast<double>(curriculum.row(curriculum.rows() - 1 - i)) / 100;
    }
    EXPECT_LT(early, 200) << pacing;
    EXPECT_GT(late, 500) << pacing;
  }
}

TEST(Curriculum, TheSeedDecidesAndEqualScoresAreShuffled) {
  const CurriculumOptions options = paced("linear", 0.1, 50);
  const std::vector<double> same(100, 1.0);
  const Curriculum one(options, same, 1), again(options, same, 1), other(options, same, 2);
  std::int64_t differs = 0;
  std::uint64_t highest = 0;
  for (std::int64_t place = 0; place < 50; ++place) {
    EXPECT_EQ(one.row(place), again.row(place));
    differs += one.row(place) != other.row(place);
    if (place < 10) highest = std::max(highest, one.row(place));
  }
  EXPECT_GT(differs, 25);
  EXPECT_GT(highest, 40u) << "ties do not favour the beginning of the text";
}

TEST(Curriculum, TakesItsLengthInEpochsToo) {
  CurriculumOptions options = paced("linear", 1.0, 0);
  options.epochs = 1.5;
  EXPECT_EQ(Curriculum(options, rising(10), 0).rows(), 20) << "15 rows, and the pass to its end";
  options.epochs = 0.001;
  EXPECT_EQ(Curriculum(options, rising(10), 0).rows(), 10);
  EXPECT_EQ(Curriculum(options, rising(1), 0).rows(), 1) << "a single row";
}

TEST(Curriculum, RefusesWhatMakesNoSense) {
  const auto refused = [](const CurriculumOptions& options, const std::string& part) {
    try {
      Curriculum(options, rising(4), 0);
      ADD_FAILURE() << "taken: " << part;
    } catch (const core::ConfigError& error) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  };
  refused(paced("cubic", 0.1, 5), "'linear', 'sqrt', 'step' or 'exponential'");
  refused(paced("linear", 0, 5), "more than 0 and at most 1");
  refused(paced("linear", 1.1, 5), "more than 0 and at most 1");
  refused(paced("linear", 0.1, 0), "expected one of them");
  refused(paced("linear", 0.1, -3), "expected one of them");
  refused(paced("linear", 0.1, std::int64_t{1} << 40), "curriculum_steps");
  CurriculumOptions both = paced("linear", 0.1, 5);
  both.epochs = 1;
  refused(both, "expected one of them");
}

TEST(WindowScores, AreMeansOverTokens) {
  const std::vector<std::uint64_t> ends = {3, 4, 12};
  const std::vector<double> scores = {1, 10, 4};
  EXPECT_EQ(window_scores(ends, scores, 4, 2), (std::vector<double>{(3 * 1 + 10) / 4.0, 4}));
  EXPECT_EQ(window_scores(ends, scores, 4, 3).back(), 4);
  EXPECT_EQ(window_scores(ends, scores, 100, 1), (std::vector<double>{(3 + 10 + 32) / 12.0}))
      << "a text shorter than its window";
  EXPECT_EQ(window_scores({}, {}, 4, 1), std::vector<double>{0});
}

class CurriculumLoaderTest : public ShardTest {
 protected:
  // Forty documents of four tokens with their ends; the later, the easier.
  LoaderOptions ordered(const std::string& packing) {
    LoaderOptions options;
    options.shards = {shard(std::vector<int>(20, 3)), shard(std::vector<int>(20, 3))};
    options.time = 4;
    options.rows = 2;
    options.seed = 5;
    options.packing = packing;
    options.end_id = kEnd;
    options.start_id = kStart;
    options.prefetch = false;
    options.curriculum = paced("linear", 0.25, 20);
    for (int i = 0; i < 40; ++i) options.curriculum.scores.push_back(-i);
    return options;
  }
  static std::vector<std::int64_t> labels(Loader& loader, int batches) {
    std::vector<std::int64_t> all;
    Batch batch;
    for (int i = 0; i < batches; ++i) {
      loader.next(batch);
      all.insert(all.end(), batch.labels.begin(), batch.labels.end());
    }
    return all;
  }
};

TEST_F(CurriculumLoaderTest, EasyRowsComeFirstAndPlainEpochsFollow) {
  for (const char* packing : {"windows", "documents"}) {
    LoaderOptions options = ordered(packing);
    options.rows = 1;
    Loader loader(options);
    const std::int64_t rows = loader.plan().rows_per_epoch();
    EXPECT_EQ(rows, packing[0] == 'w' ? 39 : 40);
    EXPECT_EQ(loader.plan().curriculum_rows(), rows) << "one pass, no row twice";
    auto pass = labels(loader, static_cast<int>(rows));
    const std::int64_t first_document = *std::ranges::min_element(
        pass.begin(), pass.begin() + 16, {}, [](auto id) { return id == kEnd ? 1 << 20 : id; });
    // Ten of the rows are in at first, and some more after four.
    EXPECT_GE(first_document, next_ - 3 * 18);
    std::erase(pass, kEnd);
    EXPECT_EQ(std::set<std::int64_t>(pass.begin(), pass.end()).size(), pass.size());
    // What follows is what there is without a curriculum.
    const auto after = labels(loader, 90);
    options.curriculum = {};
    Loader plain(options);
    EXPECT_EQ(plain.plan().curriculum_rows(), 0);
    EXPECT_EQ(labels(plain, 90), after);
  }
}

TEST_F(CurriculumLoaderTest, ThreadsSeekAndOtherBatchesChangeNothing) {
  LoaderOptions options = ordered("windows");
  Loader loader(options);
  const auto all = labels(loader, 40);
  options.prefetch = true;
  Loader threaded(options);
  EXPECT_EQ(labels(threaded, 40), all);
  threaded.seek(7);
  loader.seek(7);
  EXPECT_EQ(labels(threaded, 5), labels(loader, 5));
  options.rows = 4;  // as where memory ran out before, the other way round
  Loader larger(options);
  EXPECT_EQ(labels(larger, 20), all);
}

TEST_F(CurriculumLoaderTest, GoesWithObjectivesAndRowsThatAreCutAnew) {
  LoaderOptions options = ordered("windows");
  options.time = 8;
  options.objective.name = "span";
  options.objective.vocab_size = 300;
  options.objective.sentinels = {290, 291, 292};
  Loader spans(options);
  const auto first = labels(spans, 3);
  spans.seek(0);
  EXPECT_EQ(labels(spans, 3), first);
  options.objective = {};
  std::set<std::uint64_t> keys;
  options.recut = [&](std::span<const std::int64_t> ids, std::uint64_t key,
                      std::vector<std::int64_t>& out) {
    keys.insert(key);
    out.assign(ids.begin(), ids.end());
  };
  options.curriculum.start = 0.01;  // the same row again and again
  options.curriculum.pacing = "step";
  options.rows = 1;
  Loader cut(options);
  const auto rows = labels(cut, 2);
  EXPECT_EQ(std::vector(rows.begin(), rows.begin() + 8), std::vector(rows.begin() + 8, rows.end()));
  EXPECT_GE(keys.size(), 4u) << "each time anew";
}

TEST_F(CurriculumLoaderTest, WrongScoresAreRefused) {
  LoaderOptions options = ordered("windows");
  options.sequential = true;
  EXPECT_THROW(Loader{options}, core::ConfigError);
  options = ordered("documents");
  options.curriculum.scores[3] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THROW(Loader{options}, core::DataError);
  options.curriculum.scores.pop_back();
  EXPECT_THROW(Loader{options}, core::DataError);
}

}  // namespace
}  // namespace omnima::data
