// Text to ids and back. One encode path; safe to call from many threads, none of which needs the
// interpreter.
#include "omnima/text/tokenizer.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <system_error>
#include <thread>
#include <utility>

#include "omnima/core/error.h"
#include "omnima/core/mix.h"
#include "omnima/core/random.h"
#include "omnima/text/unicode.h"
#include "omnima/text/utf8.h"

namespace omnima::text {

using core::DataError;
using core::require;

namespace {

constexpr std::size_t kBytesWorthAThread = 1 << 15;
constexpr std::size_t kBytesATurn = 1 << 14;
constexpr double kMaxAlpha = 1e6;  // far beyond what still lets chance in

// The vocabulary, once it is checked, as text is cut: marks as spaces. A piece with a space of its
// own then can come from no text.
std::optional<Vocabulary> as_cut(const Vocabulary& given) {
  check(given);
  if (!given.marking) return std::nullopt;
  Vocabulary vocabulary = given;
  for (std::size_t id = 0; id < vocabulary.pieces.size(); ++id) {
    Role& role = vocabulary.roles[id];
    std::string& piece = vocabulary.pieces[id];
    const bool never_marked = piece.find(' ') != std::string::npos;
    if (never_marked && (role == Role::kText || role == Role::kUser)) role = Role::kSpecial;
    piece = unmarked(piece);
  }
  return vocabulary;
}

std::unique_ptr<Model> make_model(const Vocabulary& vocabulary) {
  switch (vocabulary.algorithm) {
    case Algorithm::kUnigram:
      return make_unigram(vocabulary);
    case Algorithm::kWord:
      return make_words(vocabulary);
    default:
      return make_bpe(vocabulary);
  }
}

bool continues_character(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

}  // namespace

// A cache of this tokenizer's for the length of one call; it goes back with what it has learnt.
class Tokenizer::BorrowedCache {
 public:
  explicit BorrowedCache(const Tokenizer& owner) : owner_(owner) {
    const std::lock_guard lock(owner.caches_mutex_);
    if (!owner.idle_caches_.empty()) {
      cache_ = std::move(owner.idle_caches_.back());
      owner.idle_caches_.pop_back();
    } else {
      owner.idle_caches_.reserve(owner.caches_ + 1);  // so that giving it back cannot fail
      cache_ = std::make_unique<ChunkCache>();
      ++owner.caches_;
    }
  }
  ~BorrowedCache() {
    const std::lock_guard lock(owner_.caches_mutex_);
    owner_.idle_caches_.push_back(std::move(cache_));
  }
  BorrowedCache(const BorrowedCache&) = delete;
  BorrowedCache& operator=(const BorrowedCache&) = delete;

  ChunkCache& operator*() { return *cache_; }

 private:
  const Tokenizer& owner_;
  std::unique_ptr<ChunkCache> cache_;
};

Tokenizer::Tokenizer(Vocabulary vocabulary)
    : Tokenizer(std::move(vocabulary), as_cut(vocabulary)) {}

Tokenizer::Tokenizer(Vocabulary&& vocabulary, const std::optional<Vocabulary>& marked)
    : vocabulary_(std::move(vocabulary)),
      bytes_(marked ? *marked : vocabulary_),
      model_(make_model(marked ? *marked : vocabulary_)),
      finder_(vocabulary_, false),
      second_finder_(vocabulary_, true) {
  if (vocabulary_.pattern) {
    splitter_.emplace(*vocabulary_.pattern);
  } else {
    chunker_.emplace(marked ? *marked : vocabulary_);
  }
  // Sums in single precision depend on where a text begins.
  cuts_whole_ = vocabulary_.algorithm == Algorithm::kUnigram && vocabulary_.marking &&
                vocabulary_.marking->sentencepiece;
}

// Calls chunk(part, joint) for parts that are cut on their own; a joint one goes on with the word
// of the part before.
template <class Chunk>
void Tokenizer::for_each_chunk(std::string_view text, const Chunk& chunk) const {
  if (splitter_) {
    for (std::size_t start = 0, end = 0; start < text.size(); start = end) {
      end = splitter_->end_of_piece(text, start);
      chunk(text.substr(start, end - start), false);
    }
    return;
  }
  const bool words = vocabulary_.marking && vocabulary_.marking->words;
  for (std::size_t start = 0, end = 0; start < text.size(); start = end) {
    end = cuts_whole_ ? text.size() : chunker_->end_of_chunk(text, start);
    chunk(text.substr(start, end - start), start > 0 && !(words && text[start] == ' '));
  }
}

// A stretch between the tokens found in the text as it is: marked, and searched again.
template <class Chunk, class Token>
void Tokenizer::for_each_marked(std::string_view text, bool opens, bool parse_special,
                                const Chunk& chunk, const Token& token) const {
  const Marking& marking = *vocabulary_.marking;
  std::string buffer;
  if (marking.in_normalizer) text = mark(text, opens, marking, buffer);
  const auto stretch = [&](std::size_t begin, std::size_t end) {
    std::string_view part = text.substr(begin, end - begin);
    if (!marking.in_normalizer) part = mark(part, opens && begin == 0, marking, buffer);
    for_each_chunk(part, chunk);
  };
  if (second_finder_.finds(parse_special)) {
    second_finder_.split(text, parse_special, stretch, token);
  } else {
    stretch(0, text.size());
  }
}

template <class Chunk, class Token>
void Tokenizer::for_each_part(std::string_view text, bool parse_special, const Chunk& chunk,
                              const Token& token) const {
  std::string composed;
  const auto stretch = [&](std::size_t begin, std::size_t end) {
    std::string_view part = text.substr(begin, end - begin);
    if (vocabulary_.nfc) part = to_nfc(part, composed);
    if (vocabulary_.marking) {
      for_each_marked(part, begin == 0, parse_special, chunk, token);
    } else {
      for_each_chunk(part, chunk);
    }
  };
  if (finder_.finds(parse_special)) {
    finder_.split(text, parse_special, stretch, token);
  } else {
    stretch(0, text.size());
  }
}

// One unknown token where the ids at a joint are two of them.
void Tokenizer::fuse_unknown(std::size_t joint, std::vector<Id>& out) const {
  if (joint == 0 || joint >= out.size()) return;
  if (out[joint] != vocabulary_.unknown || out[joint - 1] != out[joint]) return;
  out.erase(out.begin() + static_cast<std::ptrdiff_t>(joint));
}

void Tokenizer::encode_dropped(std::string_view text, double dropout, std::uint64_t key,
                               std::vector<Id>& out) const {
  require<core::ConfigError>(vocabulary_.algorithm == Algorithm::kBpe &&
                                 !(vocabulary_.merges.empty() && vocabulary_.scores.empty()),
                             "only a tokenizer of kind 'bpe' has merges to leave out");
  encode_by_chance(text, dropout, key, out);
}

void Tokenizer::encode_sampled(std::string_view text, double alpha, std::uint64_t key,
                               std::vector<Id>& out) const {
  require<core::ConfigError>(vocabulary_.algorithm == Algorithm::kUnigram,
                             "only a tokenizer of kind 'unigram' has probabilities to draw cuts "
                             "by");
  encode_by_chance(text, alpha, key, out);
}

void Tokenizer::check_chance(std::string_view text, double amount) const {
  const std::size_t invalid = find_invalid_utf8(text);
  require<DataError>(invalid == std::string_view::npos, "invalid Unicode at byte ", invalid,
                     " of the text; expected UTF-8");
  if (vocabulary_.algorithm == Algorithm::kUnigram) {
    require<core::ConfigError>(amount >= 0.0 && amount <= kMaxAlpha, "alpha is ", amount,
                               "; expected 0 (all cuts alike) to ", kMaxAlpha, " (the best cut)");
  } else {
    require<core::ConfigError>(amount >= 0.0 && amount <= 1.0, "dropout is ", amount,
                               "; expected a probability from 0 to 1");
  }
}

void Tokenizer::encode_by_chance(std::string_view text, double amount, std::uint64_t key,
                                 std::vector<Id>& out) const {
  check_chance(text, amount);
  core::Random random(key);
  for_each_part(
      text, false,
      [&](std::string_view chunk, bool joint) {
        const std::size_t before = out.size();
        model_->encode_by_chance(chunk, amount, random, out);
        if (joint && vocabulary_.fuse_unknown) fuse_unknown(before, out);
      },
      [&](Id id) { out.push_back(id); });
}

void Tokenizer::recut(std::span<const Id> ids, double amount, std::uint64_t key,
                      std::vector<Id>& out) const {
  const auto is_text = [&](Id id) {
    check_id(id);
    const Role role = vocabulary_.roles[id];
    return (role == Role::kText || role == Role::kByte) && vocabulary_.unknown != id;
  };
  const auto keep = [&](std::size_t from, std::size_t to) {
    out.insert(out.end(), ids.begin() + static_cast<std::ptrdiff_t>(from),
               ids.begin() + static_cast<std::ptrdiff_t>(to));
  };
  for (std::size_t first = 0, last = 0; first < ids.size(); first = last) {
    for (last = first; last < ids.size() && is_text(ids[last]);) ++last;
    // Tokens at the borders that hold a part of a character stay.
    std::size_t begin = first, end = last;
    while (begin < end && continues_character(bytes_[ids[begin]][0])) ++begin;
    std::string text;
    for (std::size_t i = begin; i < end; ++i) text += bytes_[ids[i]];
    while (end > begin && find_invalid_utf8(text) != std::string::npos) {
      text.resize(text.size() - bytes_[ids[--end]].size());
    }
    keep(first, begin);
    check_chance(text, amount);
    core::Random random(core::mix(key, first));
    std::string composed;  // the text is that of pieces: marked already
    for_each_chunk(vocabulary_.nfc ? to_nfc(text, composed) : text,
                   [&](std::string_view chunk, bool) {
                     model_->encode_by_chance(chunk, amount, random, out);
                   });
    if (last < ids.size()) ++last;  // a control token
    keep(end, last);
  }
}

void Tokenizer::encode_chunk(std::string_view chunk, ChunkCache& cache,
                             std::vector<Id>& out) const {
  if (chunk.size() > ChunkCache::kMaxBytes) {
    model_->encode(chunk, out);
    return;
  }
  ChunkCache::Entry& entry = cache.entry(chunk);
  if (entry.holds(chunk)) {
    out.insert(out.end(), entry.ids, entry.ids + entry.count);
    return;
  }
  const std::size_t before = out.size();
  model_->encode(chunk, out);
  ChunkCache::store(entry, chunk, out.data() + before, out.size() - before);
}

void Tokenizer::encode_with(std::string_view text, const EncodeOptions& options, ChunkCache& cache,
                            std::vector<Id>& out) const {
  const std::size_t invalid = find_invalid_utf8(text);
  require<DataError>(invalid == std::string_view::npos, "invalid Unicode at byte ", invalid,
                     " of the text; expected UTF-8");
  const std::size_t first = out.size();
  if (options.add_bos) {
    require<DataError>(vocabulary_.bos.has_value(), "this tokenizer has no begin token to add");
    out.push_back(*vocabulary_.bos);
  }
  const std::size_t body = out.size();
  for_each_part(
      text, options.parse_special,
      [&](std::string_view chunk, bool joint) {
        const std::size_t before = out.size();
        encode_chunk(chunk, cache, out);
        if (joint && vocabulary_.fuse_unknown) fuse_unknown(before, out);
      },
      [&](Id id) { out.push_back(id); });
  if (options.add_bos && out.size() > body && out[body] == out[first]) {
    out.erase(out.begin() + static_cast<std::ptrdiff_t>(first));
  }
  if (options.add_eos) {
    require<DataError>(vocabulary_.eos.has_value(), "this tokenizer has no end token to add");
    if (out.size() == first || out.back() != *vocabulary_.eos) out.push_back(*vocabulary_.eos);
  }
}

void Tokenizer::encode(std::string_view text, std::vector<Id>& out,
                       const EncodeOptions& options) const {
  BorrowedCache cache(*this);
  encode_with(text, options, *cache, out);
}

std::vector<std::vector<Id>> Tokenizer::encode_batch(std::span<const std::string_view> texts,
                                                     const EncodeOptions& options,
                                                     int threads) const {
  std::vector<std::vector<Id>> results(texts.size());
  std::size_t total = 0;
  for (const std::string_view text : texts) total += text.size();
  if (threads <= 0) threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  threads = static_cast<int>(
      std::min({static_cast<std::size_t>(threads), texts.size(), total / kBytesWorthAThread + 1}));

  std::mutex turn_mutex;
  std::size_t next = 0;
  std::exception_ptr error;
  // Hands out runs of documents of some kilobytes, so that short ones share the cost of a turn.
  const auto take_turn = [&]() -> std::pair<std::size_t, std::size_t> {
    const std::lock_guard lock(turn_mutex);
    const std::size_t begin = next;
    for (std::size_t bytes = 0; next < texts.size() && bytes < kBytesATurn; ++next) {
      bytes += texts[next].size() + 1;
    }
    return {begin, next};
  };
  const auto work = [&] {
    try {
      BorrowedCache cache(*this);
      std::vector<Id> ids;
      for (auto [begin, end] = take_turn(); begin < end; std::tie(begin, end) = take_turn()) {
        for (std::size_t i = begin; i < end; ++i) {
          ids.clear();
          encode_with(texts[i], options, *cache, ids);
          results[i].assign(ids.begin(), ids.end());
        }
      }
    } catch (...) {
      const std::lock_guard lock(turn_mutex);
      if (!error) error = std::current_exception();
      next = texts.size();
    }
  };
  std::vector<std::thread> helpers;
  helpers.reserve(static_cast<std::size_t>(threads));
  try {
    for (int i = 1; i < threads; ++i) helpers.emplace_back(work);
  } catch (const std::system_error&) {
    // The system gives no more threads: those that are there do the work.
  }
  work();
  for (std::thread& helper : helpers) helper.join();
  if (error) std::rethrow_exception(error);
  return results;
}

}  // namespace omnima::text
