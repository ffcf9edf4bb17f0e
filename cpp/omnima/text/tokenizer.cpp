// Text to ids and back. One encode path; safe to call from many threads, none of which needs the
// interpreter.
#include "omnima/text/tokenizer.h"

#include <algorithm>
#include <atomic>
#include <exception>
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
constexpr double kMaxAlpha = 1e6;                // far beyond what still lets chance in
constexpr char kReplacement[] = "\xEF\xBF\xBD";  // U+FFFD, what an unknown character decodes to

Vocabulary checked(Vocabulary vocabulary) {
  check(vocabulary);
  return vocabulary;
}

std::vector<std::string> decoded_pieces(const Vocabulary& vocabulary) {
  std::vector<std::string> decoded = vocabulary.pieces;
  if (vocabulary.byte_level()) {
    for (std::size_t id = 0; id < decoded.size(); ++id) {
      if (vocabulary.roles[id] == Role::kText) decoded[id] = *spelled_bytes(decoded[id]);
    }
  } else if (const auto bytes = byte_ids(vocabulary)) {
    for (int byte = 0; byte < 256; ++byte) {
      decoded[(*bytes)[byte]] = std::string(1, static_cast<char>(byte));
    }
  }
  if (vocabulary.unknown) decoded[*vocabulary.unknown] = kReplacement;
  return decoded;
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
      cache_ = std::make_unique<ChunkCache>();
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
    : vocabulary_(checked(std::move(vocabulary))),
      bytes_(decoded_pieces(vocabulary_)),
      model_(make_model(vocabulary_)),
      chunker_(vocabulary_),
      specials_(vocabulary_) {
  if (vocabulary_.pattern) splitter_.emplace(*vocabulary_.pattern);
}

template <class Visit>
void Tokenizer::for_each_chunk(std::string_view text, const Visit& visit) const {
  std::string composed;
  if (vocabulary_.nfc) text = to_nfc(text, composed);
  if (splitter_) {
    for (std::size_t start = 0, end = 0; start < text.size(); start = end) {
      end = splitter_->end_of_piece(text, start);
      visit(text.substr(start, end - start));
    }
    return;
  }
  for (std::size_t start = 0, end = 0; start < text.size(); start = end) {
    end = chunker_.end_of_chunk(text, start);
    visit(text.substr(start, end - start));
  }
}

void Tokenizer::encode_plain(std::string_view text, ChunkCache& cache, std::vector<Id>& out) const {
  for_each_chunk(text, [&](std::string_view chunk) { encode_chunk(chunk, cache, out); });
}

void Tokenizer::encode_dropped(std::string_view text, double dropout, std::uint64_t key,
                               std::vector<Id>& out) const {
  require<core::ConfigError>(
      vocabulary_.algorithm == Algorithm::kBpe && !vocabulary_.merges.empty(),
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

void Tokenizer::encode_by_chance(std::string_view text, double amount, std::uint64_t key,
                                 std::vector<Id>& out) const {
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
  core::Random random(key);
  for_each_chunk(
      text, [&](std::string_view chunk) { model_->encode_by_chance(chunk, amount, random, out); });
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
    encode_by_chance(text, amount, core::mix(key, first), out);
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
  std::size_t start = 0;
  while (options.parse_special) {
    const auto match = specials_.find(text, start);
    if (!match) break;
    encode_plain(text.substr(start, match->position - start), cache, out);
    out.push_back(match->id);
    start = match->position + match->length;
  }
  encode_plain(text.substr(start), cache, out);
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
  for (int i = 1; i < threads; ++i) helpers.emplace_back(work);
  work();
  for (std::thread& helper : helpers) helper.join();
  if (error) std::rethrow_exception(error);
  return results;
}

void Tokenizer::check_id(Id id) const {
  require<DataError>(id < size(), "token id ", id, " is outside of the vocabulary of ", size(),
                     " pieces (0 to ", size() - 1, ")");
}

void Tokenizer::append_bytes(Id id, bool skip_special, std::string& out) const {
  check_id(id);
  if (vocabulary_.unknown == id || !skip_special || vocabulary_.roles[id] != Role::kSpecial) {
    out += bytes_[id];
  }
}

std::string Tokenizer::decode(std::span<const Id> ids, bool skip_special) const {
  std::string bytes;
  for (const Id id : ids) append_bytes(id, skip_special, bytes);
  if (find_invalid_utf8(bytes) == std::string_view::npos) return bytes;
  std::string text;
  append_replaced(bytes, false, text);
  return text;
}

const std::string& Tokenizer::piece(Id id) const {
  check_id(id);
  return vocabulary_.pieces[id];
}

}  // namespace omnima::text
