#include "omnima/data/objective.h"

#include <algorithm>
#include <cmath>

#include "omnima/core/error.h"
#include "omnima/core/field.h"
#include "omnima/core/labels.h"
#include "omnima/core/mix.h"

namespace omnima::data {
namespace {

using core::ConfigError;
using core::require;

constexpr double kMasked = 0.8, kMaskedOrDrawn = 0.9;

// Numbers in order, each a pure function of the key and its place.
class Dice {
 public:
  explicit Dice(std::uint64_t key) : key_(key) {}
  std::int64_t below(std::int64_t count) {
    return static_cast<std::int64_t>(next() % static_cast<std::uint64_t>(count));
  }
  double share() { return static_cast<double>(next() >> 11) * 0x1p-53; }

 private:
  std::uint64_t next() { return core::mix(key_, drawn_++); }

  std::uint64_t key_, drawn_ = 0;
};

// Moves `count` of the values, each as likely as any other, to the front.
void choose(std::vector<std::int64_t>& values, std::int64_t count, Dice& dice) {
  const auto size = static_cast<std::int64_t>(values.size());
  for (std::int64_t i = 0; i < count; ++i) std::swap(values[i], values[i + dice.below(size - i)]);
}

// The lengths of `parts` parts of `total`, none empty, every way to cut as likely as any other.
std::vector<std::int64_t> cut(std::int64_t total, std::int64_t parts, Dice& dice) {
  std::vector<std::int64_t> places(static_cast<std::size_t>(total - 1));
  for (std::int64_t i = 0; i < total - 1; ++i) places[i] = i + 1;
  choose(places, parts - 1, dice);
  places.resize(static_cast<std::size_t>(parts - 1));
  places.push_back(0);
  places.push_back(total);
  std::ranges::sort(places);
  std::vector<std::int64_t> lengths;
  for (std::int64_t i = 0; i < parts; ++i) lengths.push_back(places[i + 1] - places[i]);
  return lengths;
}

}  // namespace

void ObjectiveOptions::check(std::int64_t time) const {
  core::check_field({"objective",
                     std::string("next_token"),
                     "what is learned",
                     0,
                     0,
                     {"next_token", "masked", "span"}},
                    name);
  if (is_plain()) return;
  core::check_field({"corruption_rate", 0.15, "share of the tokens masked or cut out", 1e-3, 0.9},
                    rate);
  if (!cuts_spans()) {
    require<ConfigError>(mask_id >= 0 && mask_id < vocab_size, "mask_id is ", mask_id,
                         ", which is no id of a vocabulary of ", vocab_size,
                         ": objective masked needs a mask token.");
    return;
  }
  core::check_field({"span_length", 3.0, "mean tokens of a span", 1, 1e6}, span_length);
  const std::int64_t tokens = tokens_in_row(time, *this);
  require<ConfigError>(tokens > 0, "A row of ", time,
                       " tokens is too short to cut spans out of it: make the context longer.");
  const auto spans = count_spans(tokens, *this).spans;
  require<ConfigError>(spans <= static_cast<std::int64_t>(sentinels.size()), "Rows of ", time,
                       " tokens have ", spans, " spans cut out, but there are ", sentinels.size(),
                       " sentinels: take longer spans (span_length), a lower corruption_rate or a "
                       "shorter context, or a tokenizer with more sentinels.");
}

SpanCount count_spans(std::int64_t tokens, const ObjectiveOptions& options) {
  SpanCount count;
  count.cut = std::clamp<std::int64_t>(std::llround(static_cast<double>(tokens) * options.rate), 1,
                                       tokens - 1);
  count.spans =
      std::clamp<std::int64_t>(std::llround(static_cast<double>(count.cut) / options.span_length),
                               1, std::min(count.cut, tokens - count.cut));
  return count;
}

std::int64_t tokens_in_row(std::int64_t time, const ObjectiveOptions& options) {
  // A row has one place fewer than its sequence, whose last token is a label only.
  for (std::int64_t tokens = time; tokens > 1; --tokens) {
    if (tokens + 2 * count_spans(tokens, options).spans + 1 <= time) return tokens;
  }
  return 0;
}

void mask_tokens(const ObjectiveOptions& options, std::uint64_t key, std::span<std::int64_t> ids,
                 std::span<std::int64_t> labels) {
  Dice dice(key);
  std::vector<std::int64_t> places;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    if (labels[i] == core::kIgnoredLabel) continue;
    ids[i] = labels[i];
    if (std::ranges::find(options.kept, labels[i]) == options.kept.end()) {
      places.push_back(static_cast<std::int64_t>(i));
    }
  }
  std::ranges::fill(labels, core::kIgnoredLabel);
  if (places.empty()) return;
  const std::int64_t count =
      std::max<std::int64_t>(1, std::llround(static_cast<double>(places.size()) * options.rate));
  choose(places, count, dice);
  for (std::int64_t i = 0; i < count; ++i) {
    std::int64_t& id = ids[places[i]];
    labels[places[i]] = id;
    const double share = dice.share();
    if (share < kMasked) {
      id = options.mask_id;
    } else if (share < kMaskedOrDrawn) {
      id = dice.below(options.vocab_size);
    }
  }
}

void cut_spans(const ObjectiveOptions& options, std::uint64_t key,
               std::span<const std::int64_t> tokens, std::int64_t separator, std::int64_t end,
               std::span<std::int64_t> ids, std::span<std::int64_t> labels) {
  const auto length = static_cast<std::int64_t>(tokens.size());
  if (length < 2) return;
  Dice dice(key);
  const SpanCount count = count_spans(length, options);
  const auto cut_out = cut(count.cut, count.spans, dice);
  const auto between = cut(length - count.cut, count.spans, dice);
  std::vector<std::int64_t> row, targets;
  for (std::int64_t i = 0, at = 0; i < count.spans; ++i) {
    const auto text = tokens.subspan(at, between[i]);
    const auto span = tokens.subspan(at + between[i], cut_out[i]);
    row.insert(row.end(), text.begin(), text.end());
    row.push_back(options.sentinels[i]);
    targets.push_back(options.sentinels[i]);
    targets.insert(targets.end(), span.begin(), span.end());
    at += between[i] + cut_out[i];
  }
  row.push_back(separator);
  const std::size_t asked = row.size();  // labels before are not learned
  row.insert(row.end(), targets.begin(), targets.end());
  row.push_back(end);
  std::copy(row.begin(), row.end() - 1, ids.begin());
  std::copy(row.begin() + static_cast<std::ptrdiff_t>(asked), row.end(),
            labels.begin() + static_cast<std::ptrdiff_t>(asked - 1));
}

}  // namespace omnima::data
