// Text to ids and back. One encode path; safe to call from many threads, none of which needs the
// interpreter.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "omnima/text/cache.h"
#include "omnima/text/chunker.h"
#include "omnima/text/decoded_pieces.h"
#include "omnima/text/model.h"
#include "omnima/text/specials.h"
#include "omnima/text/vocabulary.h"

namespace omnima::text {

struct EncodeOptions {
  bool add_bos = false;  // one begin token in front, unless the text has it there already
  bool add_eos = false;  // one end token behind, unless the text has it there already
  bool parse_special =
      false;  // read special tokens written out in the text; never for untrusted text
};

class Tokenizer {
 public:
  explicit Tokenizer(Vocabulary vocabulary);

  // Appends the ids of valid UTF-8 text; DataError names the byte of anything else.
  void encode(std::string_view text, std::vector<Id>& out, const EncodeOptions& options = {}) const;

  // Encodes documents on several threads (0: one a core). Errors of any document are thrown.
  std::vector<std::vector<Id>> encode_batch(std::span<const std::string_view> texts,
                                            const EncodeOptions& options = {},
                                            int threads = 0) const;

  // Appends the ids of valid UTF-8 text with every possible merge left out at each step with the
  // probability `dropout`; equal keys give equal ids.
  void encode_dropped(std::string_view text, double dropout, std::uint64_t key,
                      std::vector<Id>& out) const;

  // Appends ids drawn from all cuts of valid UTF-8 text, each with a probability in proportion to
  // the power alpha of the unigram model's; equal keys give equal ids.
  void encode_sampled(std::string_view text, double alpha, std::uint64_t key,
                      std::vector<Id>& out) const;

  // Ids that mean the same text, cut again by chance; control tokens stay. The amount is the
  // dropout of BPE or the alpha of unigram.
  void recut(std::span<const Id> ids, double amount, std::uint64_t key, std::vector<Id>& out) const;

  // The text of ids; broken UTF-8 becomes U+FFFD. Special tokens are left out or written out. With
  // ids that came before, it is the text that goes on behind theirs.
  std::string decode(std::span<const Id> ids, bool skip_special = true,
                     std::span<const Id> after = {}) const;

  // What the text of the next ids loses: that of a whole text where nothing was shown before, or
  // where the token before is special and encoding puts a mark behind such; else nothing.
  Opening opening(std::span<const Id> after, bool skip_special) const;

  // Appends the raw bytes of one token, less what the opening takes, which is nothing any more once
  // the text has begun; DataError for an id outside of the vocabulary.
  void append_bytes(Id id, bool skip_special, Opening& opening, std::string& out) const;

  // Whether each byte of broken UTF-8 is one U+FFFD, or each maximal part of a character.
  bool replaces_each_byte() const { return vocabulary_.marking.has_value(); }

  // The token as the vocabulary spells it ("<0x0A>", " the", "</s>").
  const std::string& piece(Id id) const;

  const Vocabulary& vocabulary() const { return vocabulary_; }
  std::size_t size() const { return vocabulary_.pieces.size(); }

 private:
  class BorrowedCache;

  Tokenizer(Vocabulary&& vocabulary, const std::optional<Vocabulary>& marked);

  template <class Chunk, class Token>
  void for_each_part(std::string_view text, bool parse_special, const Chunk& chunk,
                     const Token& token) const;
  template <class Chunk, class Token>
  void for_each_marked(std::string_view text, bool opens, bool parse_special, const Chunk& chunk,
                       const Token& token) const;
  template <class Chunk>
  void for_each_chunk(std::string_view text, const Chunk& chunk) const;
  void fuse_unknown(std::size_t joint, std::vector<Id>& out) const;
  bool is_shown(Id id, bool skip_special) const;
  void encode_chunk(std::string_view chunk, ChunkCache& cache, std::vector<Id>& out) const;
  void check_chance(std::string_view text, double amount) const;
  void encode_by_chance(std::string_view text, double amount, std::uint64_t key,
                        std::vector<Id>& out) const;
  void encode_with(std::string_view text, const EncodeOptions& options, ChunkCache& cache,
                   std::vector<Id>& out) const;
  void check_id(Id id) const;

  Vocabulary vocabulary_;
  DecodedPieces bytes_;  // what each id decodes to
  std::unique_ptr<Model> model_;
  std::optional<Chunker> chunker_;
  std::optional<Splitter> splitter_;  // takes the chunker's place where there is a pattern
  bool cuts_whole_ = false;           // a stretch of text is one chunk
  TokenFinder finder_;                // of tokens in text as it is
  TokenFinder second_finder_;         // of those behind the normalizer
  mutable std::mutex caches_mutex_;
  mutable std::vector<std::unique_ptr<ChunkCache>> idle_caches_;
  mutable std::size_t caches_ = 0;  // idle or lent
};

}  // namespace omnima::text
