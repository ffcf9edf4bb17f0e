// Batches from token shards: the order is a pure function of (seed, epoch, position).
//
// With the plain objective every token of the stream is a label; the input before it is the token
// before it, and where a document begins, the start token stands in for the end token of the
// document before. So a model always sees the start token at the beginning of a document, and
// learns to predict its end.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "omnima/data/batch.h"
#include "omnima/data/curriculum.h"
#include "omnima/data/objective.h"
#include "omnima/data/packing.h"
#include "omnima/data/token_stream.h"

namespace omnima::data {

// Appends other ids of the same text; equal keys give equal ids.
using Recut =
    std::function<void(std::span<const std::int64_t>, std::uint64_t, std::vector<std::int64_t>&)>;

struct LoaderOptions {
  std::vector<ShardFiles> shards;
  int width = 2;  // bytes of an id in the shards
  std::int64_t rows = 1;
  std::int64_t time = 1;
  std::uint64_t seed = 0;
  std::string packing = "windows";  // "windows": stretches of the stream; "documents": whole ones
  bool sequential = false;          // every position once, in order, then the end
  bool prefetch = true;             // batches are made ahead in a thread of their own
  std::int64_t end_id = 0;          // stands after each document
  std::int64_t start_id = 0;        // the input before a document's first token
  ObjectiveOptions objective{};     // other ones change a row after it was read
  Recut recut;                      // when given, every row is cut anew in every epoch
  CurriculumOptions curriculum{};   // with scores, the first rows of the run go from easy to hard
};

// Which batch holds what; it has no state, so many threads may ask.
class BatchPlan {
 public:
  explicit BatchPlan(LoaderOptions options);

  const LoaderOptions& options() const { return options_; }
  std::int64_t rows_per_epoch() const { return rows_per_epoch_; }
  std::int64_t batches_per_epoch() const;
  // Rows of the run that a curriculum orders; the plain epochs follow them.
  std::int64_t curriculum_rows() const { return curriculum_ ? curriculum_->rows() : 0; }
  // A sequential plan throws core::DataError past its end.
  void fill(std::int64_t position, Batch& batch) const;

 private:
  struct Place {
    std::uint64_t index = 0;      // of the row in its epoch
    std::uint64_t phase = 0;      // where the first window of that epoch begins
    std::uint64_t recut_key = 0;  // of the way in which it is cut anew
  };
  Place place(std::int64_t row_of_run) const;
  void make_curriculum();
  std::vector<double> row_scores(std::span<const double> scores) const;
  void fill_row(std::int64_t row_of_run, Batch& batch, std::int64_t row) const;
  void fill_window(std::uint64_t start, Batch& batch, std::int64_t row) const;
  void fill_documents(std::uint64_t packed_row, Batch& batch, std::int64_t row) const;
  void fill_cut(std::uint64_t start, std::uint64_t key, Batch& batch, std::int64_t row) const;
  void recut_row(std::uint64_t key, Batch& batch, std::int64_t row) const;
  void fill_stretch(std::uint64_t start, bool begins_document, std::span<std::int64_t> ids,
                    std::span<std::int64_t> labels) const;
  void check() const;

  LoaderOptions options_;
  TokenStream stream_;
  PackedRows packed_;  // only for documents
  std::optional<Curriculum> curriculum_;
  bool documents_;
  std::int64_t window_ = 1;  // tokens of the stream in a window
  std::int64_t rows_per_epoch_ = 0;
};

class Loader final : public BatchSource {
 public:
  explicit Loader(LoaderOptions options);
  ~Loader() override;
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  void next(Batch& batch) override;
  std::int64_t position() const override;
  void seek(std::int64_t position) override;
  // True when the prefetching thread has made them already.
  bool peek(std::size_t count, std::vector<Batch>& batches) const override;
  const BatchPlan& plan() const { return plan_; }

 private:
  static constexpr std::size_t kAhead = 4;
  struct Made {
    Batch batch;
    std::exception_ptr error;
  };
  void start();
  void stop();
  void work(std::int64_t position);

  const BatchPlan plan_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Made> ready_;
  bool stopping_ = false;
  std::int64_t position_ = 0;
  std::optional<std::thread> worker_;
};

}  // namespace omnima::data
