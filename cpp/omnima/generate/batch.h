// Texts that share the steps of one model: each enters and leaves between any two of them.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "omnima/generate/change.h"
#include "omnima/generate/engine.h"
#include "omnima/generate/prefix_cache.h"
#include "omnima/generate/request.h"
#include "omnima/generate/sampler.h"

namespace omnima::generate {

struct BatchOptions {
  std::int64_t max_sequences = 16;  // that are read and written at once
  // Of a piece of a prompt, in whole pages; prompts share what are the same pieces from their
  // beginnings on.
  std::int64_t chunk_tokens = kPageTokens;
  // Of the pieces that are read in one step, so that long prompts do not hold up the texts beside
  // them.
  std::int64_t tokens_at_once = 256;
  std::int64_t memory_bytes = 0;  // for keys and values; 0: as much as there is
  // Of these, for pieces of prompts whose texts have ended.
  std::int64_t kept_bytes = std::int64_t{256} << 20;
  std::string prompt_precision = "fp32";  // as in GenerateOptions
  std::string cache_precision = "fp32";
};

// A text's tokens are those it would get alone: prompts are read in the same pieces whatever is
// beside them, and a row's numbers do not depend on the other rows. For one thread.
class Batch {
 public:
  // Refers to the engine.
  Batch(const Engine& engine, BatchOptions options, Constrain constrain = {});

  std::int64_t size() const { return std::ssize(reading_) + std::ssize(writing_); }
  // Whether there is a place for it, and memory for all that it may write. Forgets kept pieces
  // where that makes room.
  bool has_place(const Request& request);
  // Throws ConfigError for a request that the model cannot answer, or that no memory is enough for.
  // From any thread.
  void check(const Request& request) const;
  // Tokens of its prompt and those it may write. From any thread.
  std::int64_t length_of(const Request& request) const;
  // What computes its numbers now. From any thread.
  std::uint64_t weights_of(const Request& request) const;
  // Throws ConfigError where its adapters cannot stand beside the weights.
  void enter(std::uint64_t id, Request request);
  // Ends a text, if it is here.
  bool cancel(std::uint64_t id);
  // Reads a piece of one prompt or of several, then writes a token of each text whose prompt is
  // read. Adds what became of them to `events`.
  void step(std::vector<Event>& events);
  // Ends all texts with this error.
  void fail(const std::string& error, std::vector<Event>& events);

  struct Counts {
    std::int64_t prompt_tokens = 0;  // read
    std::int64_t new_tokens = 0;
    std::int64_t cached_tokens = 0;  // of prompts, that were not read since they were known
    std::int64_t steps = 0;
  };
  const Counts& counts() const { return counts_; }
  struct Memory {
    std::int64_t page_bytes = 0;
    std::int64_t most = 0;   // pages that there may be; 0: as memory has
    std::int64_t texts = 0;  // pages that texts hold
    std::int64_t kept = 0;   // pages that are kept for later texts alone
  };
  Memory memory() const;

 private:
  struct Text {
    std::uint64_t id;
    Request request;
    const Change* change;
    Ids tokens;  // of the prompt, behind the virtual ones; then the newest alone
    std::unique_ptr<SequenceState> state;
    std::optional<Sampler> sampler;  // refers to the request's options
    std::int64_t room = 0;           // tokens it may still write
    std::int64_t newest = 0;
    std::uint64_t piece = 0;  // key of the piece that was read last
    std::int64_t read = 0;    // tokens of the prompt that its state remembers
    std::int64_t cached = 0;  // tokens of the prompt that were known
    bool begun = false;       // it has its first token
    std::string error{};
    std::vector<TokenLogprob> logprobs{};  // of the newest, where they are asked for
  };
  using Texts = std::vector<std::unique_ptr<Text>>;

  // Of texts, and kept.
  std::int64_t pages_in_use() const;
  const Change* bind(const Adapters& adapters);
  std::int64_t virtual_tokens(const Request& request) const;
  // The piece from token `begin` on.
  std::span<const std::int64_t> piece_at(const Text& text, std::int64_t begin) const;
  // The pieces that a step reads, and of how many texts they are.
  std::int64_t choose_pieces();
  void take_known(Text& text);
  // A piece that was read, from token `begin` on.
  void keep_piece(Text& text, std::int64_t begin, std::span<const std::int64_t> piece);
  void read(std::vector<Event>& events);
  void begin_writing(std::unique_ptr<Text> text);
  void write(std::vector<Event>& events);
  // The next token of each text, from its row of the logits.
  void draw(std::span<const std::unique_ptr<Text>> texts);
  void draw(Text& text, std::span<float> logits, std::span<const std::int32_t> allowed) const;
  // Asks which tokens may follow; masks_ then has a row of each text, empty where any may.
  void constrain(std::span<const std::unique_ptr<Text>> texts);
  // Tells of the newest token; false when the text ends with it.
  bool tell(Text& text, std::vector<Event>& events);
  std::size_t words() const {
    return (static_cast<std::size_t>(engine_.config().vocab_size) + 31) / 32;
  }

  struct Bound {
    Adapters adapters;  // stay while the change does
    std::unique_ptr<const Change> change;
  };

  const Engine& engine_;
  BatchOptions options_;
  Constrain constrain_;
  const Memory limits_;  // without what is in use
  std::map<const ops::AdaptedModel*, Bound> bound_;
  std::unique_ptr<ModelRunner> runner_;  // outlives the states of its texts
  // Begins the keys of kept pieces: nobody outside can make two texts of one key.
  const std::uint64_t secret_ = std::random_device{}();
  PrefixCache kept_;
  std::deque<std::unique_ptr<Text>> reading_;  // the next one first
  Texts writing_;                              // those with the same adapters side by side
  std::vector<ModelRunner::Piece> pieces_;     // that a step reads
  std::vector<std::int64_t> last_rows_;        // of prompts that end
  std::vector<SequenceState*> states_;         // of the rows of a step
  Ids tokens_;
  std::vector<float> logits_;  // [max_sequences, vocab]
  std::vector<std::uint64_t> asking_;
  Ids newest_;
  std::vector<std::int32_t> masks_;                   // [constrained, words]
  std::vector<std::span<const std::int32_t>> rules_;  // of each text of a draw
  Counts counts_;
};

}  // namespace omnima::generate
