// The attention of runner.h to the keys and values that sequences remember. A query's tokens are
// taken in stretches of fixed places, each with a softmax of its own, and joined in their order
// (Milakov and Gimelshein 2018): the numbers are the same whichever threads computed the stretches.
#include <algorithm>
#include <cmath>
#include <limits>

#include "omnima/generate/runner.h"
#include "omnima/kernels/cpu/cached_heads.h"
#include "omnima/kernels/cpu/logits.h"

namespace omnima::generate {
namespace {

// Fewer heads than this many a thread are shared out by stretches.
constexpr std::int64_t kHeadsOfAThread = 4;

std::int64_t stretches_of(std::int64_t tokens) { return (tokens + kStretch - 1) / kStretch; }

}  // namespace

std::int64_t Runner::seen_size() const {
  const std::int64_t shared = config_.num_attention_heads / config_.num_key_value_heads;
  return shared * (2 + kernels::whole_tiles(config_.head_dim));
}

Runner::Seen Runner::seen_at(float* memory) const {
  const std::int64_t shared = config_.num_attention_heads / config_.num_key_value_heads;
  return {memory, memory + shared, memory + 2 * shared};
}

void Runner::attend_to_cache(std::int64_t layer, std::int64_t first_row, std::int64_t rows) {
  const std::int64_t heads = config_.num_key_value_heads, size = seen_size();
  const std::int64_t few = kHeadsOfAThread * team_.size();
  const std::int64_t scores = static_cast<std::int64_t>(scores_.size()) / team_.size();
  std::int64_t longest = 0;
  for (std::int64_t i = 0; i < rows; ++i) {
    longest = std::max(longest, rows_[first_row + i].position + 1);
  }
  const std::int64_t stretches = stretches_of(longest);
  // Two of each thread, or one of each stretch: as many as the longest sequence will ask for.
  const std::int64_t room =
      size * std::max<std::int64_t>(2 * team_.size(), few * stretches_of(longest_));
  if (std::ssize(seen_) < room) seen_.resize(static_cast<std::size_t>(room));
  if (rows * heads >= few || stretches == 1) {
    share(rows * heads, [&](std::int64_t begin, std::int64_t end, int thread) {
      const Seen all = seen_at(&seen_[2 * thread * size]);
      const Seen part = seen_at(&seen_[(2 * thread + 1) * size]);
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t row = first_row + i / heads, head = i % heads;
        forget(all);
        for (std::int64_t j = 0; j < stretches_of(rows_[row].position + 1); ++j) {
          see_stretch(layer, row, head, j, &scores_[thread * scores], part);
          join(part, all);
        }
        write_seen(all, row, head);
      }
    });
    return;
  }
  share(rows * heads * stretches, [&](std::int64_t begin, std::int64_t end, int thread) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t head = i / stretches;
      see_stretch(layer, first_row + head / heads, head % heads, i % stretches,
                  &scores_[thread * scores], seen_at(&seen_[i * size]));
    }
  });
  for (std::int64_t i = 0; i < rows * heads; ++i) {
    const Seen all = seen_at(&seen_[i * stretches * size]);
    for (std::int64_t j = 1; j < stretches; ++j) {
      join(seen_at(&seen_[(i * stretches + j) * size]), all);
    }
    write_seen(all, first_row + i / heads, i % heads);
  }
}

void Runner::forget(const Seen& seen) const {
  const std::int64_t shared = config_.num_attention_heads / config_.num_key_value_heads;
  std::fill_n(seen.tops, shared, -std::numeric_limits<float>::infinity());
  std::fill_n(seen.totals, shared, 0.0f);
  std::fill_n(seen.sums, shared * kernels::whole_tiles(config_.head_dim), 0.0f);
}

template <class F>
void Runner::for_pages(std::int64_t layer, std::int64_t row, std::int64_t head, std::int64_t begin,
                       std::int64_t end, const F& f) const {
  for (std::int64_t at = begin; at < end;) {
    const std::int64_t page = at / kPageTokens, first = page * kPageTokens;
    const std::int64_t last = std::min(end, first + kPageTokens);
    f(rows_[row].state->head(layer, head, page), at - first, last - first, at - begin);
    at = last;
  }
}

// What the queries of a row see of one stretch. Without a pattern of blocks all of a head see the
// same.
void Runner::see_stretch(std::int64_t layer, std::int64_t row, std::int64_t head,
                         std::int64_t stretch, float* scores, const Seen& seen) {
  const auto& table = kernels::cached_head_kernels();
  const std::int64_t shared = config_.num_attention_heads / config_.num_key_value_heads;
  const std::int64_t width = config_.head_dim, wide = kernels::whole_tiles(width);
  const std::int64_t position = rows_[row].position, window = config_.window_of(layer);
  const std::int64_t first = stretch * kStretch, last = std::min(first + kStretch, position + 1);
  const core::BlockPattern blocks = config_.blocks_of(layer);
  const std::int64_t together = blocks.size > 0 ? 1 : shared;
  forget(seen);
  for (std::int64_t at = 0; at < shared; at += together) {
    const std::int64_t query = head * shared + at;
    const auto for_pieces = [&](const auto& f) {
      const auto within = [&](std::int64_t begin, std::int64_t end) {
        if (std::max(begin, first) < std::min(end, last)) {
          f(std::max(begin, first), std::min(end, last));
        }
      };
      if (blocks.size > 0) return blocks.for_stretches(query, position, within);
      within(window > 0 ? position + 1 - window : 0, position + 1);
    };
    std::int64_t count = 0;
    for_pieces([&](std::int64_t begin, std::int64_t end) {
      const float* queries = &q_[(row * config_.num_attention_heads + query) * width];
      for_pages(layer, row, head, begin, end,
                [&](const auto& cached, std::int64_t from, std::int64_t to, std::int64_t passed) {
                  table.scores(cached, from, to, queries, together, scores + count + passed,
                               kStretch);
                });
      for (std::int64_t i = 0; i < together; ++i) {
        shape(query + i, begin, end - begin, position, scores + i * kStretch + count);
      }
      count += end - begin;
    });
    for (std::int64_t i = 0; i < together && count > 0; ++i) {
      weigh(scores + i * kStretch, count, seen.tops[at + i], seen.totals[at + i]);
    }
    std::int64_t from = 0;
    for_pieces([&](std::int64_t begin, std::int64_t end) {
      for_pages(
          layer, row, head, begin, end,
          [&](const auto& cached, std::int64_t first, std::int64_t last, std::int64_t passed) {
            table.add_values(cached, first, last, scores + from + passed, kStretch, together,
                             seen.sums + at * wide);
          });
      from += end - begin;
    });
  }
}

// Scores become weights relative to the largest.
void Runner::weigh(float* scores, std::int64_t count, float& top, float& total) const {
  const auto& table = kernels::logit_kernels();
  const float scale = score_scale();
  for (std::int64_t i = 0; i < count; ++i) scores[i] *= scale;
  top = table.largest(scores, count);
  total = static_cast<float>(table.softmax_weights(scores, top, scores, count));
}

// Adds what a stretch has seen to what those before have.
void Runner::join(const Seen& part, const Seen& all) const {
  const std::int64_t shared = config_.num_attention_heads / config_.num_key_value_heads;
  const std::int64_t wide = kernels::whole_tiles(config_.head_dim);
  for (std::int64_t i = 0; i < shared; ++i) {
    if (part.totals[i] == 0.0f) continue;  // it has seen nothing
    const float top = std::max(all.tops[i], part.tops[i]);
    const float kept = std::exp(all.tops[i] - top), added = std::exp(part.tops[i] - top);
    all.tops[i] = top;
    all.totals[i] = all.totals[i] * kept + part.totals[i] * added;
    float* sums = all.sums + i * wide;
    const float* more = part.sums + i * wide;
    for (std::int64_t j = 0; j < wide; ++j) sums[j] = sums[j] * kept + more[j] * added;
  }
}

void Runner::write_seen(const Seen& seen, std::int64_t row, std::int64_t head) {
  const std::int64_t shared = config_.num_attention_heads / config_.num_key_value_heads;
  const std::int64_t width = config_.head_dim;
  for (std::int64_t i = 0; i < shared; ++i) {
    const float* sums = seen.sums + i * kernels::whole_tiles(width);
    float* out = &attended_[(row * config_.num_attention_heads + head * shared + i) * width];
    for (std::int64_t j = 0; j < width; ++j) out[j] = sums[j] / seen.totals[i];
  }
}

}  // namespace omnima::generate
