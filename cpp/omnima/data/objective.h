// What a row of tokens asks a model for: its next tokens, masked ones (Devlin et al. 2019, BERT),
// or spans that were cut out (Raffel et al. 2020, T5, written as one sequence for a decoder). What
// is masked or cut out is a pure function of a key.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace omnima::data {

struct ObjectiveOptions {
  std::string name = "next_token";      // next_token | masked | span
  double rate = 0.15;                   // share of the tokens that is masked or cut out
  double span_length = 3.0;             // mean tokens of a span
  std::int64_t vocab_size = 0;          // masked: tokens drawn at random are below it
  std::int64_t mask_id = -1;            // masked
  std::vector<std::int64_t> kept;       // masked: ids that are never masked
  std::vector<std::int64_t> sentinels;  // span: the first stands for the first span, and so on

  bool is_plain() const { return name == "next_token"; }
  bool cuts_spans() const { return name == "span"; }
  // Throws core::ConfigError where rows of `time` tokens cannot be made.
  void check(std::int64_t time) const;
};

// A row of tokens with spans cut out: tokens - cut + spans of them before the separator, then a
// sentinel and its span for each, and the end.
struct SpanCount {
  std::int64_t cut = 0;
  std::int64_t spans = 0;
};
SpanCount count_spans(std::int64_t tokens, const ObjectiveOptions& options);
// The most tokens whose row with spans cut out has at most `time` places; 0: there are none.
std::int64_t tokens_in_row(std::int64_t time, const ObjectiveOptions& options);

// labels hold a row's tokens, -100 where there are none. Of those that may be masked the share of
// the options is chosen: they stay as labels, all others become -100. ids become the tokens, with
// 80% of the chosen ones masked and 10% drawn at random.
void mask_tokens(const ObjectiveOptions& options, std::uint64_t key, std::span<std::int64_t> ids,
                 std::span<std::int64_t> labels);

// Writes the row of `tokens`: each cut span becomes its sentinel, then `separator`, then the spans,
// each after its sentinel, then `end`. Labels begin after the separator; the rest of ids and labels
// stays as it is. Fewer than two tokens make no row.
void cut_spans(const ObjectiveOptions& options, std::uint64_t key,
               std::span<const std::int64_t> tokens, std::int64_t separator, std::int64_t end,
               std::span<std::int64_t> ids, std::span<std::int64_t> labels);

}  // namespace omnima::data
