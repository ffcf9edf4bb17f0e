// Runs a decoder forward for tokens that are appended to sequences, on the CPU in float32.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "omnima/core/buffer.h"
#include "omnima/core/lines.h"
#include "omnima/generate/change.h"
#include "omnima/generate/compact_copies.h"
#include "omnima/generate/decode_state.h"
#include "omnima/generate/model_runner.h"
#include "omnima/generate/team.h"
#include "omnima/generate/weights.h"
#include "omnima/generate/wide_products.h"
#include "omnima/models/decoder_config.h"
#include "omnima/models/rotary.h"

namespace omnima::generate {

// Tokens that attention takes at once: their keys and values stay in the second cache.
inline constexpr std::int64_t kStretch = 512;

// From this many rows on, a blocked matrix product is faster than gemv.
inline constexpr std::int64_t kWideRows = 32;

// A buffer only grows: its contents are written before they are read.
template <class Vector>
void grow(Vector& buffer, std::int64_t size) {
  if (std::ssize(buffer) < size) buffer.resize(static_cast<std::size_t>(size));
}

class Runner final : public ModelRunner {
 public:
  // `copies`: of the weights' halves, or null.
  Runner(const models::DecoderConfig& config, const Weights& weights, const RunnerOptions& options,
         CompactCopies* copies = nullptr);

  std::unique_ptr<SequenceState> begin(std::int64_t capacity,
                                       const Change* change = nullptr) override;
  std::unique_ptr<SequenceState> begin_as(const SequenceState& known, std::int64_t tokens,
                                          std::int64_t capacity,
                                          const Change* change = nullptr) override;
  void prefill(SequenceState& state, std::span<const std::int64_t> tokens) override;
  bool reads_together() const override { return together_; }
  void read(std::span<const Piece> pieces) override;
  void append(std::span<SequenceState* const> states,
              std::span<const std::int64_t> tokens) override;
  void logits(std::int64_t first, std::int64_t count, float* out) override;
  void logits(std::span<const std::int64_t> rows, float* out) override;
  void hidden(std::int64_t first, std::int64_t count, float* out) override;
  Team& team() override { return team_; }
  const PagePool* pool() const override { return &pool_; }

 private:
  // One token on its way through the model.
  struct Row {
    DecodeState* state;
    std::int64_t position;
    const models::RotaryTables* rotary;
    std::int64_t virtual_token = -1;  // which it is; -1: none
  };

  void forward(std::span<const std::int64_t> tokens);
  void embed(std::span<const std::int64_t> tokens);
  void attention(std::int64_t layer, const Layer& weights);
  // Of a prompt, in tiles; what the sequence knew before is read from its state.
  bool has_tiles() const;
  // The pieces of prompts that a pass reads.
  struct Stretch {
    std::int64_t first, count;  // rows
  };
  // Whether two pieces of a text may be read as one: the first one's keys and values are what the
  // second would find in the cache, and a query's sums are the same wherever its piece begins.
  bool joins_pieces() const;
  void attend_in_pieces(std::int64_t layer);
  void attend_in_tiles(std::int64_t layer, const Stretch& piece);
  template <class T>
  void attend_to_tiles(std::int64_t layer, const Stretch& piece, void* memory, T* out,
                       std::int64_t out_stride);
  // Queries, keys and values of the tokens of a sequence side by side, those that are known already
  // without queries.
  template <class T>
  void gather_tokens(std::int64_t layer, const Stretch& piece, T* to);
  // Runs body(begin, end, thread) over 0..count on all threads of the team.
  template <class F>
  void share(std::int64_t count, const F& body);
  void attend_to_cache(std::int64_t layer, std::int64_t first_row, std::int64_t rows);
  // Calls f(cached, begin, end, passed) for each page of the row's tokens begin to end, which are
  // numbers of the page's; `passed`: tokens of the pages before.
  template <class F>
  void for_pages(std::int64_t layer, std::int64_t row, std::int64_t head, std::int64_t begin,
                 std::int64_t end, const F& f) const;
  // What the query heads of one head of keys have seen: of each the largest score, the sum of the
  // weights relative to it, and the sums of the weighted values [whole_tiles(head_dim)].
  struct Seen {
    float *tops, *totals, *sums;
  };
  std::int64_t seen_size() const;
  Seen seen_at(float* memory) const;
  void forget(const Seen& seen) const;
  void see_stretch(std::int64_t layer, std::int64_t row, std::int64_t head, std::int64_t stretch,
                   float* scores, const Seen& seen);
  void weigh(float* scores, std::int64_t count, float& top, float& total) const;
  void join(const Seen& part, const Seen& all) const;
  void write_seen(const Seen& seen, std::int64_t row, std::int64_t head);
  void remember(std::int64_t layer, const Layer& weights);
  void reorder(float* heads, std::int64_t count, int thread);
  // The norm of each query or key head of a row.
  // Keys and values of a row that an adapter gives; false: it gives none for this row.
  bool take_virtual(std::int64_t layer, std::int64_t row);
  void normalise_heads(const Weight& norm, float* heads, std::int64_t count, int thread);
  void remember(std::int64_t layer, const Layer& weights, std::int64_t row, int thread);
  // What attention computes and reads in a layer, for the profile.
  struct Work {
    double flops = 0, bytes = 0;
  };
  Work attention_work(std::int64_t layer) const;
  // Null: the layer turns nothing.
  const models::RotaryTables* tables_of(std::int64_t layer, const Row& row) const;
  void rotate(float* heads, std::int64_t count, std::int64_t position,
              const models::RotaryTables& tables) const;
  // What query head `head` of `position` adds to its scores with `count` keys from `begin` on, but
  // for their scale.
  void shape(std::int64_t head, std::int64_t begin, std::int64_t count, std::int64_t position,
             float* scores) const;
  // The scale of shaped scores.
  float score_scale() const;
  Row row_of(SequenceState& state, std::int64_t position);
  std::shared_ptr<const models::RotaryTables> tables_for(std::int64_t room);
  void mlp(const Layer& weights);
  // y [rows, hidden] = what an mlp makes of x; with `add`, where products can: y += that.
  void pass_mlp(const Mlp& mlp, const float* x, std::int64_t rows, float* y, bool add = false);
  // What adapters behind a layer make of its outputs y [rows, outputs].
  void pass_bottlenecks(const Linear& layer, float* y);
  void pass_gated(const Mlp& mlp, const float* x, std::int64_t rows);
  void begin_halves(const float* x, std::int64_t rows, std::int64_t width);
  HalfProducts& take_halves(const float* x, std::int64_t rows, std::int64_t inputs);
  // y [inner] = what the activation makes of a row of gate and up, or of up alone.
  void activate(const float* x, std::int64_t inner, float* y);
  // Adds to projected_ what the experts make of the rows that the router sends to them.
  void pass_experts(const Layer& weights);
  // Which rows, and at which weight, come to each expert.
  struct Sent {
    std::int64_t row;
    float weight;
  };
  const std::vector<std::vector<Sent>>& routes(const Linear& router);
  // Rows of the residual stream, from row `first` on, into normed_; as they are without a norm.
  void normalise(const Norm& norm, std::int64_t first, std::int64_t rows);
  void normalise(const Norm& norm, const float* x, std::int64_t rows, float* y);
  // Adds projected_ to the residual stream, by way of a norm where there is one.
  void add_to_residual(const Norm& norm);
  // Products of the same inputs with several weights, and what adapters make of them.
  void products(std::initializer_list<Output> outputs, const float* x, std::int64_t rows);
  // A product of some rows.
  struct Item {
    Output output;
    const float* x;
    std::int64_t rows;
  };
  // As one parallel section; a profile counts them to `part`. The rows of the first are all rows:
  // those of others with weights that are read otherwise than as float32 are, too.
  void multiply(std::span<const Item> items, const char* part);
  // Neighbouring rows with the same change.
  struct Group {
    std::int64_t first, count;
    const Change* change;
  };
  // Of `count` rows, of which change(i) is that of row i.
  template <class F>
  void group(std::int64_t count, const F& change);
  // A layer's products for the rows of a group, whose x A^T begin at `thin` of thin_.
  struct Changed {
    const Output* output;
    const Group* group;
    const LinearChange* change;
    std::int64_t thin;
  };
  bool scales_inputs(const Linear& linear) const;
  const float* scaled(const Linear& linear, const float* x, std::int64_t rows);
  void adapted_products(std::span<const Output> outputs, const float* x, std::int64_t rows);
  void add_low_rank();
  void add_wide_low_rank(const Changed& changed);
  void scale_outputs(const Changed& changed);
  void exchange_biases(const Changed& changed);
  // When a text begins: copies of weights that have changed are used no more.
  void look_at_weights();
  // Of a linear layer; null: its numbers are read as they are.
  const kernels::Compact* compact(const Linear& linear) const;
  // The rows of activations in 8 bits, for packed weights.
  kernels::ByteRows in_bytes(const float* x, std::int64_t rows, std::int64_t inputs);
  // The same in bfloat16, as half_gemv takes them.
  const void* in_half_rows(const float* x, std::int64_t rows, std::int64_t inputs);
  // Products that end a block add to the residual stream themselves, where nothing reads what they
  // give: neither this norm nor an adapter.
  bool adds_at_once(const Norm& norm) const {
    return in_halves() && groups_.empty() && norm.weight.data() == nullptr &&
           !config_.parallel_residual;
  }
  // The products of a prompt in bfloat16.
  bool in_halves() const { return wide_ && bf16_prompts_; }
  // The products of many rows, which all items have.
  void multiply_wide(std::span<const Item> items);
  const models::DecoderConfig& config_;
  const Weights& weights_;
  CompactCopies* copies_;
  std::shared_ptr<const CompactCopies::Set> compact_;
  std::int64_t halves_read_ = 0;  // bytes, since the last step
  Team team_;
  std::vector<Row> rows_;
  std::vector<Stretch> pieces_;    // of prompts
  std::vector<std::int64_t> ids_;  // of their tokens
  bool wide_ = false;
  bool bf16_prompts_, together_;
  PageLayout layout_;
  PagePool pool_;
  std::int64_t longest_;
  models::RotaryTables rotary_, local_rotary_;  // of layers with a window, where those have others
  // Of sequences that have tables of their own, by the number of tokens they have room for: what is
  // written then is what training computes for a row of that length.
  std::map<std::int64_t, std::weak_ptr<const models::RotaryTables>> longer_;
  at::Tensor buckets_;         // of distances, with relative positions
  std::vector<float> slopes_;  // ALiBi, of each query head; empty: none
  std::vector<float> scores_;  // [threads, heads that share keys, kStretch]
  std::vector<float> seen_;    // what attend_to_cache has seen, seen_size() each
  // Buffers of all rows: the residual stream, its normalised copy, and what the layers make of it.
  using Floats = core::LineVector<float>;
  Floats x_, normed_, q_, k_, v_, attended_, projected_, inner_, activated_;
  Floats routed_, gathered_, made_;      // the routers' logits, and one expert's rows
  std::vector<std::vector<Sent>> sent_;  // to each expert
  std::vector<std::int64_t> chosen_;     // experts of one row
  std::vector<float> chosen_weights_;    // and their weights
  std::vector<float> rstd_;              // scratch of normalise_heads, of each thread
  Floats change_;                        // of attention, while the mlp beside it reads the stream
  // Of a prompt: queries, keys and values side by side; a tile of each thread.
  core::Buffer tokens_, tiles_;
  HalfProducts halves_{team_}, middle_{team_};
  // With adapters: the rows that have any, in those of the step or of an expert; their products.
  std::vector<Group> groups_, all_groups_;
  std::vector<Item> items_;
  std::vector<Output> outputs_;
  std::vector<Changed> changed_;
  Floats thin_, scaled_, added_;  // x A^T; inputs with factors; what is added once it has them
  Floats narrow_;                 // of a bottleneck
  HalfProducts thin_halves_{team_};
  FloatProducts floats_{team_}, thin_floats_{team_};
  const float* halves_of_ = nullptr;      // whose rows halves_ holds for the next products, if any
  std::vector<float> ordered_;            // scratch of reorder, of each thread
  std::vector<std::int8_t> byte_levels_;  // what in_bytes makes
  std::vector<float> byte_scales_;
  std::vector<std::int32_t> byte_totals_;
  core::LineVector<std::uint8_t> half_rows_;  // what in_half_rows makes
};

template <class F>
void Runner::group(std::int64_t count, const F& change) {
  groups_.clear();
  for (std::int64_t i = 0; i < count; ++i) {
    const Change* const own = change(i);
    if (own == nullptr) continue;
    if (!groups_.empty() && groups_.back().change == own &&
        groups_.back().first + groups_.back().count == i) {
      ++groups_.back().count;
    } else {
      groups_.push_back({i, 1, own});
    }
  }
}

template <class F>
void Runner::share(std::int64_t count, const F& body) {
  team_.run(count, wide_ ? std::max<std::int64_t>(1, count / (16 * team_.size())) : 1, body);
}

}  // namespace omnima::generate
