#include "omnima/data/samples.h"

#include <algorithm>
#include <limits>

#include "omnima/core/error.h"
#include "omnima/core/labels.h"
#include "omnima/core/mix.h"
#include "omnima/data/permutation.h"

namespace omnima::data {

using core::ConfigError;
using core::DataError;
using core::require;

SamplePlan::SamplePlan(SampleOptions options) : options_(std::move(options)) {
  check();
  if (options_.packed) {
    pack();
    return;
  }
  for (std::uint64_t sample = 0; sample < options_.ends.size(); ++sample) {
    samples_.push_back(static_cast<std::int64_t>(sample));
    row_ends_.push_back(sample + 1);
  }
}

void SamplePlan::check() const {
  require<ConfigError>(options_.rows > 0 && options_.rows <= (1 << 24), "rows is ", options_.rows,
                       "; expected 1 to ", 1 << 24);
  require<ConfigError>(options_.time > 0 && options_.time <= (1 << 24), "time is ", options_.time,
                       "; expected 1 to ", 1 << 24);
  require<DataError>(!options_.ends.empty(), "there is no sample.");
  require<DataError>(options_.supervised.size() == options_.ids.size() &&
                         options_.ends.back() == options_.ids.size(),
                     "the samples end at ", options_.ends.back(), ", but there are ",
                     options_.ids.size(), " ids and ", options_.supervised.size(), " marks.");
  require<ConfigError>(!options_.paired || (!options_.packed && options_.rows % 2 == 0),
                       "pairs of answers need an even number of rows that are not packed; rows is ",
                       options_.rows, ".");
  require<DataError>(!options_.paired || options_.ends.size() % 2 == 0, "there are ",
                     options_.ends.size(), " samples, which are no pairs.");
  require<DataError>(
      options_.reference.empty() || options_.reference.size() == options_.ends.size(), "there are ",
      options_.reference.size(), " reference losses for ", options_.ends.size(), " samples.");
  require<DataError>(options_.good.empty() || options_.good.size() == options_.ends.size(),
                     "there are ", options_.good.size(), " judgements for ", options_.ends.size(),
                     " samples.");
  std::uint64_t begin = 0;
  for (std::size_t sample = 0; sample < options_.ends.size(); ++sample) {
    const std::uint64_t end = options_.ends[sample];
    require<DataError>(end > begin + 1 && end - begin - 1 <= std::uint64_t(options_.time),
                       "sample ", sample, " has ", end - begin, " tokens; expected 2 to ",
                       options_.time + 1, ".");
    const auto first = options_.supervised.begin() + static_cast<std::ptrdiff_t>(begin) + 1;
    const auto last = options_.supervised.begin() + static_cast<std::ptrdiff_t>(end);
    require<DataError>(std::find(first, last, 1) != last, "sample ", sample,
                       " has no supervised token behind its first one: nothing can be learned.");
    begin = end;
  }
}

void SamplePlan::set_reference(std::vector<float> reference) {
  options_.reference = std::move(reference);
  check();
}

// The places of samples, one behind the other, are packed as documents are.
void SamplePlan::pack() {
  std::vector<std::uint64_t> ends;
  std::uint64_t end = 0;
  for (std::size_t sample = 0; sample < options_.ends.size(); ++sample) {
    ends.push_back(end += std::uint64_t(places_of(static_cast<std::int64_t>(sample))));
  }
  PackedRows packed = pack_documents(ends, static_cast<std::uint32_t>(options_.time));
  for (const Stretch& stretch : packed.stretches) {
    samples_.push_back(std::ranges::upper_bound(ends, stretch.start) - ends.begin());
  }
  row_ends_ = std::move(packed.row_ends);
}

std::uint64_t SamplePlan::begin_of(std::int64_t sample) const {
  return sample == 0 ? 0 : options_.ends[static_cast<std::size_t>(sample) - 1];
}

// The last token of a sample is no input.
std::int64_t SamplePlan::places_of(std::int64_t sample) const {
  const std::uint64_t end = options_.ends[static_cast<std::size_t>(sample)];
  return static_cast<std::int64_t>(end - begin_of(sample)) - 1;
}

std::int64_t SamplePlan::batches_per_epoch() const {
  return (rows_per_epoch() + options_.rows - 1) / options_.rows;
}

std::vector<std::int64_t> SamplePlan::samples_of_row(std::int64_t row) const {
  require<DataError>(row >= 0 && row < rows_per_epoch(), "row ", row, " asked for; there are ",
                     rows_per_epoch(), ".");
  const auto index = static_cast<std::size_t>(row);
  const std::uint64_t first = index == 0 ? 0 : row_ends_[index - 1];
  return {samples_.begin() + static_cast<std::ptrdiff_t>(first),
          samples_.begin() + static_cast<std::ptrdiff_t>(row_ends_[index])};
}

// -1: there is no row any more.
std::int64_t SamplePlan::row_of(std::int64_t row_of_run) const {
  if (options_.sequential) return row_of_run < rows_per_epoch() ? row_of_run : -1;
  const auto epoch = static_cast<std::uint64_t>(row_of_run / rows_per_epoch());
  const auto index = static_cast<std::uint64_t>(row_of_run % rows_per_epoch());
  const std::uint64_t together = options_.paired ? 2 : 1;  // that stay side by side
  const Permutation order(static_cast<std::uint64_t>(rows_per_epoch()) / together,
                          core::mix(options_.seed, epoch));
  return static_cast<std::int64_t>(together * order(index / together) + index % together);
}

// Padded rows are as long as the longest sample of their batch.
std::int64_t SamplePlan::longest(std::int64_t position) const {
  if (options_.packed) return options_.time;
  std::int64_t most = 1;
  for (std::int64_t row = 0; row < options_.rows; ++row) {
    const std::int64_t index = row_of(position * options_.rows + row);
    if (index >= 0) most = std::max(most, places_of(samples_[static_cast<std::size_t>(index)]));
  }
  return most;
}

void SamplePlan::fill(std::int64_t position, Batch& batch) const {
  require<DataError>(
      position >= 0 && position < std::numeric_limits<std::int64_t>::max() / options_.rows,
      "batch ", position, " asked for; positions count from 0");
  require<DataError>(!options_.sequential || position < batches_per_epoch(),
                     "the data is read to its end (", batches_per_epoch(),
                     " batches); seek(0) starts again.");
  batch.rows = options_.rows;
  batch.time = longest(position);
  const auto cells = static_cast<std::size_t>(batch.rows * batch.time);
  batch.input_ids.assign(cells, options_.pad_id);
  batch.labels.assign(cells, core::kIgnoredLabel);
  batch.segments.assign(options_.packed ? cells : 0, 0);
  batch.reference.assign(options_.reference.empty() ? 0 : batch.rows, 0);
  batch.good.assign(options_.good.empty() ? 0 : batch.rows, 0);
  for (std::int64_t row = 0; row < options_.rows; ++row) {
    const std::int64_t index = row_of(position * options_.rows + row);
    if (index < 0) continue;
    fill_row(index, batch, row);
    if (!options_.paired) continue;
    const auto sample = static_cast<std::size_t>(samples_[static_cast<std::size_t>(index)]);
    if (!options_.reference.empty()) batch.reference[row] = options_.reference[sample];
    if (!options_.good.empty()) batch.good[row] = options_.good[sample];
  }
  batch.targets =
      static_cast<std::int64_t>(cells) - std::ranges::count(batch.labels, core::kIgnoredLabel);
}

void SamplePlan::fill_row(std::int64_t index, Batch& batch, std::int64_t row) const {
  std::int64_t at = row * batch.time;
  const std::int64_t end = at + batch.time;
  std::int32_t segment = 0;
  for (const std::int64_t sample : samples_of_row(index)) {
    const std::uint64_t begin = begin_of(sample);
    const std::int64_t places = places_of(sample);
    for (std::int64_t i = 0; i < places; ++i, ++at) {
      const std::uint64_t token = begin + static_cast<std::uint64_t>(i);
      const auto cell = static_cast<std::size_t>(at);
      batch.input_ids[cell] = options_.ids[token];
      if (options_.supervised[token + 1]) batch.labels[cell] = options_.ids[token + 1];
      if (options_.packed) batch.segments[cell] = segment;
    }
    ++segment;
  }
  // Padding is a segment of its own.
  if (options_.packed) {
    std::fill(batch.segments.begin() + at, batch.segments.begin() + end, segment);
  }
}

void SampleLoader::next(Batch& batch) {
  plan_.fill(position_, batch);
  ++position_;
}

void SampleLoader::seek(std::int64_t position) {
  require<ConfigError>(position >= 0, "position is ", position, "; batches count from 0");
  position_ = position;
}

bool SampleLoader::peek(std::size_t count, std::vector<Batch>& batches) const {
  batches.resize(count);
  for (std::size_t i = 0; i < count; ++i) {
    plan_.fill(position_ + static_cast<std::int64_t>(i), batches[i]);
  }
  return true;
}

}  // namespace omnima::data
