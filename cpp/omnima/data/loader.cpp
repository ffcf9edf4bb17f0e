// The plan says what each batch holds; the loader makes batches ahead of their use.
#include "omnima/data/loader.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "omnima/core/error.h"
#include "omnima/core/labels.h"
#include "omnima/core/mix.h"
#include "omnima/data/permutation.h"

namespace omnima::data {

using core::ConfigError;
using core::DataError;
using core::require;

namespace {

// No epochs: their draws are their own.
constexpr std::uint64_t kObjective = ~std::uint64_t{0};
constexpr std::uint64_t kCurriculum = ~std::uint64_t{1};

std::uint64_t epoch_key(std::uint64_t seed, std::uint64_t epoch) { return core::mix(seed, epoch); }

}  // namespace

BatchPlan::BatchPlan(LoaderOptions options)
    : options_(std::move(options)),
      stream_(options_.shards, options_.width),
      documents_(options_.packing == "documents") {
  check();
  const bool cuts = options_.objective.cuts_spans();
  window_ = cuts ? tokens_in_row(options_.time, options_.objective) : options_.time;
  const auto time = static_cast<std::uint64_t>(window_);
  if (documents_) {
    packed_ = pack_documents(stream_.document_ends(), static_cast<std::uint32_t>(time));
    rows_per_epoch_ = static_cast<std::int64_t>(packed_.row_ends.size());
  } else {
    const std::uint64_t size = stream_.size();
    // As many windows as fit after any phase below `time`, so all epochs have the same number.
    std::uint64_t windows = size >= 2 * time ? (size - time + 1) / time : 1;
    if (options_.sequential) windows = (size + time - 1) / time;
    rows_per_epoch_ = static_cast<std::int64_t>(windows);
  }
  if (!options_.curriculum.scores.empty()) make_curriculum();
}

void BatchPlan::make_curriculum() {
  require<ConfigError>(!options_.sequential,
                       "data read in its own order (sequential) cannot follow a curriculum.");
  const std::vector<double> scores = std::move(options_.curriculum.scores);
  options_.curriculum.scores.clear();  // as many as documents, and not needed any more
  curriculum_.emplace(options_.curriculum, row_scores(scores),
                      epoch_key(options_.seed, kCurriculum));
}

std::vector<double> BatchPlan::row_scores(std::span<const double> scores) const {
  const std::vector<std::uint64_t> ends = stream_.document_ends();
  require<DataError>(scores.size() == ends.size(), "the curriculum has ", scores.size(),
                     " scores, but the text has ", ends.size(), " documents: give one for each.");
  const auto odd = std::ranges::find_if_not(scores, [](double x) { return std::isfinite(x); });
  require<DataError>(odd == scores.end(), "the curriculum's score of document ",
                     odd - scores.begin() + 1, " is not a finite number.");
  if (!documents_) {
    return window_scores(ends, scores, static_cast<std::uint64_t>(window_),
                         static_cast<std::uint64_t>(rows_per_epoch_));
  }
  std::vector<double> means;
  std::size_t first = 0;
  for (const std::uint64_t end : packed_.row_ends) {
    double sum = 0, tokens = 0;
    for (; first < end; ++first) {
      const Stretch& stretch = packed_.stretches[first];
      const auto document = std::ranges::upper_bound(ends, stretch.start) - ends.begin();
      sum += scores[static_cast<std::size_t>(document)] * stretch.length;
      tokens += stretch.length;
    }
    means.push_back(sum / tokens);
  }
  return means;
}

void BatchPlan::check() const {
  require<ConfigError>(documents_ || options_.packing == "windows", "packing is '",
                       options_.packing, "'; expected 'windows' or 'documents'");
  require<ConfigError>(options_.rows > 0 && options_.rows <= (1 << 24), "rows is ", options_.rows,
                       "; expected 1 to ", 1 << 24);
  require<ConfigError>(options_.time > 0 && options_.time <= (1 << 24), "time is ", options_.time,
                       "; expected 1 to ", 1 << 24);
  options_.objective.check(options_.time);
  require<ConfigError>(!documents_ || !options_.objective.cuts_spans(),
                       "objective span cuts windows of the text: set packing to windows.");
  require<ConfigError>(!options_.recut || options_.objective.is_plain(),
                       "rows are cut anew for the objective next_token only, not for ",
                       options_.objective.name, ".");
}

std::int64_t BatchPlan::batches_per_epoch() const {
  return (rows_per_epoch_ + options_.rows - 1) / options_.rows;
}

void BatchPlan::fill(std::int64_t position, Batch& batch) const {
  require<DataError>(
      position >= 0 && position < std::numeric_limits<std::int64_t>::max() / options_.rows,
      "batch ", position, " asked for; positions count from 0");
  require<DataError>(!options_.sequential || position < batches_per_epoch(),
                     "the data is read to its end (", batches_per_epoch(),
                     " batches); seek(0) starts again.");
  const auto cells = static_cast<std::size_t>(options_.rows * options_.time);
  batch.rows = options_.rows;
  batch.time = options_.time;
  batch.input_ids.assign(cells, options_.start_id);
  batch.labels.assign(cells, core::kIgnoredLabel);
  batch.segments.assign(documents_ ? cells : 0, 0);
  for (std::int64_t row = 0; row < options_.rows; ++row) {
    fill_row(position * options_.rows + row, batch, row);
  }
  batch.targets =
      static_cast<std::int64_t>(cells) - std::ranges::count(batch.labels, core::kIgnoredLabel);
}

BatchPlan::Place BatchPlan::place(std::int64_t row_of_run) const {
  if (row_of_run < curriculum_rows()) {
    return {
        curriculum_->row(row_of_run), 0,
        core::mix(epoch_key(~options_.seed, kCurriculum), static_cast<std::uint64_t>(row_of_run))};
  }
  row_of_run -= curriculum_rows();
  const auto epoch = static_cast<std::uint64_t>(row_of_run / rows_per_epoch_);
  Place place{static_cast<std::uint64_t>(row_of_run % rows_per_epoch_)};
  if (!options_.sequential) {
    const std::uint64_t key = epoch_key(options_.seed, epoch);
    const auto count = static_cast<std::uint64_t>(rows_per_epoch_);
    const auto time = static_cast<std::uint64_t>(window_);
    place.index = Permutation(count, key)(place.index);
    if (!documents_ && stream_.size() >= time)
      place.phase = core::mix(key) % std::min(time, stream_.size() - count * time + 1);
  }
  place.recut_key = core::mix(epoch_key(~options_.seed, epoch), place.index);
  return place;
}

void BatchPlan::fill_row(std::int64_t row_of_run, Batch& batch, std::int64_t row) const {
  // The last batch is filled up with padding.
  if (options_.sequential && row_of_run >= rows_per_epoch_) return;
  const auto [index, phase, recut_key] = place(row_of_run);
  const std::uint64_t start = phase + index * static_cast<std::uint64_t>(window_);
  const std::uint64_t key =
      core::mix(epoch_key(options_.seed, kObjective), static_cast<std::uint64_t>(row_of_run));
  if (options_.objective.cuts_spans()) return fill_cut(start, key, batch, row);
  if (documents_) {
    fill_documents(index, batch, row);
  } else {
    fill_window(start, batch, row);
  }
  if (options_.recut) recut_row(recut_key, batch, row);
  if (options_.objective.is_plain()) return;
  const auto offset = static_cast<std::size_t>(row * options_.time);
  const auto time = static_cast<std::size_t>(options_.time);
  mask_tokens(options_.objective, key, std::span(batch.input_ids).subspan(offset, time),
              std::span(batch.labels).subspan(offset, time));
}

void BatchPlan::fill_cut(std::uint64_t start, std::uint64_t key, Batch& batch,
                         std::int64_t row) const {
  std::vector<std::int64_t> tokens(
      std::min<std::uint64_t>(static_cast<std::uint64_t>(window_), stream_.size() - start));
  stream_.read(start, tokens);
  const auto offset = static_cast<std::size_t>(row * options_.time);
  const auto time = static_cast<std::size_t>(options_.time);
  cut_spans(options_.objective, key, tokens, options_.start_id, options_.end_id,
            std::span(batch.input_ids).subspan(offset, time),
            std::span(batch.labels).subspan(offset, time));
}

// Each document's part of the row is cut anew, with its end token; the row keeps its length, so
// what no longer fits is left out (a window of another shuffled epoch begins elsewhere; those of a
// curriculum do not).
void BatchPlan::recut_row(std::uint64_t key, Batch& batch, std::int64_t row) const {
  const auto offset = static_cast<std::size_t>(row * options_.time);
  const auto time = static_cast<std::size_t>(options_.time);
  const auto ids = std::span(batch.input_ids).subspan(offset, time);
  const auto labels = std::span(batch.labels).subspan(offset, time);
  const auto segments =
      documents_ ? std::span(batch.segments).subspan(offset, time) : std::span<std::int32_t>{};
  const std::vector<std::int64_t> before(ids.begin(), ids.end());
  const std::vector<std::int64_t> targets(labels.begin(), labels.end());
  const std::vector<std::int32_t> numbers(segments.begin(), segments.end());
  const auto text_end =
      static_cast<std::size_t>(std::ranges::find(targets, core::kIgnoredLabel) - targets.begin());
  std::ranges::fill(ids, options_.start_id);
  std::ranges::fill(labels, core::kIgnoredLabel);
  std::vector<std::int64_t> cut;
  std::size_t at = 0;
  std::int32_t segment = 0;
  for (std::size_t first = 0, last = 0; first < text_end && at < time; first = last) {
    for (last = first; last < text_end; ++last) {
      if (documents_ && numbers[last] != numbers[first]) break;
      if (targets[last] == options_.end_id) {
        ++last;
        break;
      }
    }
    cut.clear();
    options_.recut(std::span(targets).subspan(first, last - first), core::mix(key, first), cut);
    const std::size_t length = std::min(cut.size(), time - at);
    if (length == 0) continue;
    std::copy_n(cut.begin(), length, labels.begin() + static_cast<std::ptrdiff_t>(at));
    ids[at] = before[first];
    std::copy_n(cut.begin(), length - 1, ids.begin() + static_cast<std::ptrdiff_t>(at) + 1);
    if (documents_) std::ranges::fill(segments.subspan(at, length), segment++);
    at += length;
  }
  if (documents_) std::ranges::fill(segments.subspan(at), segment);
}

void BatchPlan::fill_stretch(std::uint64_t start, bool begins_document, std::span<std::int64_t> ids,
                             std::span<std::int64_t> labels) const {
  stream_.read(start, labels);
  if (begins_document) {
    ids[0] = options_.start_id;
  } else {
    stream_.read(start - 1, ids.first(1));
  }
  std::ranges::copy(labels.first(labels.size() - 1), ids.begin() + 1);
}

void BatchPlan::fill_window(std::uint64_t start, Batch& batch, std::int64_t row) const {
  const auto offset = static_cast<std::size_t>(row * options_.time);
  const std::size_t length =
      std::min<std::uint64_t>(static_cast<std::uint64_t>(options_.time), stream_.size() - start);
  const auto ids = std::span(batch.input_ids).subspan(offset, length);
  fill_stretch(start, start == 0, ids, std::span(batch.labels).subspan(offset, length));
  std::ranges::replace(ids, options_.end_id, options_.start_id);
}

void BatchPlan::fill_documents(std::uint64_t packed_row, Batch& batch, std::int64_t row) const {
  const auto offset = static_cast<std::size_t>(row * options_.time);
  const auto time = static_cast<std::size_t>(options_.time);
  const auto segments = std::span(batch.segments).subspan(offset, time);
  std::size_t at = 0;
  std::int32_t segment = 0;
  const std::uint64_t first = packed_row == 0 ? 0 : packed_.row_ends[packed_row - 1];
  for (std::uint64_t index = first; index < packed_.row_ends[packed_row]; ++index, ++segment) {
    const Stretch& stretch = packed_.stretches[index];
    fill_stretch(stretch.start, stretch.begins_document,
                 std::span(batch.input_ids).subspan(offset + at, stretch.length),
                 std::span(batch.labels).subspan(offset + at, stretch.length));
    std::ranges::fill(segments.subspan(at, stretch.length), segment);
    at += stretch.length;
  }
  std::ranges::fill(segments.subspan(at), segment);  // padding is a segment of its own
}

Loader::Loader(LoaderOptions options) : plan_(std::move(options)) { start(); }

Loader::~Loader() { stop(); }

void Loader::start() {
  if (!plan_.options().prefetch) return;
  worker_.emplace([this, from = position_] { work(from); });
}

void Loader::stop() {
  if (!worker_) return;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  worker_->join();
  worker_.reset();
  ready_.clear();
  stopping_ = false;
}

void Loader::work(std::int64_t position) {
  for (bool more = true; more; ++position) {
    Made made;
    try {
      plan_.fill(position, made.batch);
    } catch (...) {
      made.error = std::current_exception();
      more = false;
    }
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return stopping_ || ready_.size() < kAhead; });
    if (stopping_) return;
    ready_.push_back(std::move(made));
    changed_.notify_all();
  }
}

void Loader::next(Batch& batch) {
  if (!worker_) {
    plan_.fill(position_, batch);
    ++position_;
    return;
  }
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !ready_.empty(); });
  if (ready_.front().error)
    std::rethrow_exception(ready_.front().error);  // stays for the next call
  std::swap(batch, ready_.front().batch);
  ready_.pop_front();
  ++position_;
  changed_.notify_all();
}

std::int64_t Loader::position() const {
  const std::lock_guard lock(mutex_);
  return position_;
}

bool Loader::peek(std::size_t count, std::vector<Batch>& batches) const {
  const std::lock_guard lock(mutex_);
  if (ready_.size() < count) return false;
  batches.resize(count);
  for (std::size_t i = 0; i < count; ++i) {
    if (ready_[i].error) return false;
    batches[i] = ready_[i].batch;
  }
  return true;
}

void Loader::seek(std::int64_t position) {
  require<ConfigError>(position >= 0, "position is ", position, "; batches count from 0");
  stop();
  position_ = position;
  start();
}

}  // namespace omnima::data
