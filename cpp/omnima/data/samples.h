// Batches of samples: tokens of which only some are to be learned, such as the answers of a
// conversation. The order is a pure function of (seed, epoch, position).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "omnima/data/batch.h"
#include "omnima/data/packing.h"

namespace omnima::data {

struct SampleOptions {
  std::vector<std::int32_t> ids;         // of all samples, one behind the other
  std::vector<std::uint8_t> supervised;  // as many: 1 where a token is to be predicted
  std::vector<std::uint64_t> ends;       // where each sample ends
  std::int64_t rows = 1;
  std::int64_t time = 1;  // of a row: a sample may have one token more
  std::uint64_t seed = 0;
  bool packed = true;       // several samples a row that cannot see each other; else one, padded
  bool sequential = false;  // every row once, in order, then the end
  // Samples 2k and 2k + 1 are answers to the same; both go into neighbouring rows.
  bool paired = false;
  std::vector<float> reference;    // of paired samples, see Batch::reference; or empty
  std::vector<std::uint8_t> good;  // the same, see Batch::good
  std::int64_t pad_id = 0;  // the input where no sample is; its label is none, whatever the id
};

// Which batch holds what; without state.
class SamplePlan {
 public:
  explicit SamplePlan(SampleOptions options);

  const SampleOptions& options() const { return options_; }
  std::int64_t rows_per_epoch() const { return static_cast<std::int64_t>(row_ends_.size()); }
  std::int64_t batches_per_epoch() const;
  // From now on; one number a sample.
  void set_reference(std::vector<float> reference);
  // Numbers of the samples of a row, in its order.
  std::vector<std::int64_t> samples_of_row(std::int64_t row) const;
  void fill(std::int64_t position, Batch& batch) const;

 private:
  void check() const;
  void pack();
  std::uint64_t begin_of(std::int64_t sample) const;
  std::int64_t places_of(std::int64_t sample) const;
  std::int64_t row_of(std::int64_t row_of_run) const;
  std::int64_t longest(std::int64_t position) const;
  void fill_row(std::int64_t index, Batch& batch, std::int64_t row) const;

  SampleOptions options_;
  std::vector<std::int64_t> samples_;    // of all rows, in order
  std::vector<std::uint64_t> row_ends_;  // where those of each row end
};

class SampleLoader final : public BatchSource {
 public:
  explicit SampleLoader(SampleOptions options) : plan_(std::move(options)) {}

  void next(Batch& batch) override;
  std::int64_t position() const override { return position_; }
  void seek(std::int64_t position) override;
  bool peek(std::size_t count, std::vector<Batch>& batches) const override;
  const SamplePlan& plan() const { return plan_; }
  void set_reference(std::vector<float> reference) { plan_.set_reference(std::move(reference)); }

 private:
  SamplePlan plan_;
  std::int64_t position_ = 0;
};

}  // namespace omnima::data
