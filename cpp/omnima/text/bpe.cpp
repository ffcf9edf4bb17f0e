// Byte-pair encoding (Sennrich et al. 2016): the pair of lowest rank is merged first, of equals the
// leftmost. The order of events, stale queue entries included, is that of Hugging Face tokenizers,
// so ids agree exactly.
#include <algorithm>
#include <functional>
#include <string>
#include <tuple>
#include <unordered_map>

#include "omnima/text/model.h"
#include "omnima/text/pair_table.h"
#include "omnima/text/scored_merges.h"
#include "omnima/text/unicode.h"
#include "omnima/text/utf8.h"

namespace omnima::text {
namespace {

struct Symbol {
  Id id;
  int previous, next;  // -1 at the borders
  bool alive;
};

struct Candidate {
  std::uint32_t rank;
  int position;
  Id result;
  // Heap order: the smallest (rank, position) is on top.
  bool operator<(const Candidate& other) const {
    return std::tie(rank, position) > std::tie(other.rank, other.position);
  }
};

// Buffers of one thread, kept between calls.
struct Scratch {
  std::vector<Symbol> symbols;
  std::vector<Candidate> queue;
  std::vector<Candidate> dropped;
};

struct StringHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const {
    return std::hash<std::string_view>{}(text);
  }
};

class Bpe final : public Model {
 public:
  explicit Bpe(const Vocabulary& vocabulary)
      : Bpe(vocabulary, vocabulary.scores.empty() ? ScoredMerges{vocabulary.merges, {}, {}}
                                                  : scored_merges(vocabulary)) {}

  void encode_by_chance(std::string_view chunk, double dropout, core::Random& random,
                        std::vector<Id>& out) const override {
    thread_local Scratch scratch;
    read_symbols(chunk, scratch.symbols);
    merge_some(scratch, dropout, random);
    write_symbols(scratch.symbols, out);
  }

  void encode(std::string_view chunk, std::vector<Id>& out) const override {
    thread_local Scratch scratch;
    if (!wholes_.empty()) {
      if (const auto found = wholes_.find(chunk); found != wholes_.end()) {
        out.push_back(found->second);
        return;
      }
    }
    read_symbols(chunk, scratch.symbols);
    merge_all(scratch);
    write_symbols(scratch.symbols, out);
  }

 private:
  Bpe(const Vocabulary& vocabulary, const ScoredMerges& scored)
      : merges_(scored.merges.size()),
        bytes_(byte_ids(vocabulary)),
        byte_level_(vocabulary.byte_level()),
        fuse_unknown_(vocabulary.fuse_unknown),
        first_stranger_(static_cast<Id>(vocabulary.pieces.size())),
        strangers_(scored.strangers),
        unknown_(vocabulary.unknown.value_or(kNoId)) {
    for (std::size_t i = 0; i < scored.merges.size(); ++i) {
      const Merge& merge = scored.merges[i];
      const auto rank = scored.ranks.empty() ? static_cast<std::uint32_t>(i) : scored.ranks[i];
      merges_.insert(merge.left, merge.right, {rank, merge.result});
    }
    if (byte_level_) {
      if (vocabulary.whole_first) read_wholes(vocabulary);
      return;
    }
    for (std::size_t id = 0; id < vocabulary.pieces.size(); ++id) {
      const std::string& piece = vocabulary.pieces[id];
      const bool is_text =
          vocabulary.roles[id] == Role::kText || vocabulary.roles[id] == Role::kUser;
      if (!is_text || vocabulary.unknown == static_cast<Id>(id)) continue;
      if (utf8_length(static_cast<unsigned char>(piece[0])) != piece.size()) continue;
      add_character(code_point(piece), static_cast<Id>(id));
    }
    for (std::size_t i = 0; i < strangers_.size(); ++i) {
      add_character(strangers_[i], first_stranger_ + static_cast<Id>(i));
    }
  }

  void add_character(std::uint32_t point, Id id) {
    if (characters_.size() <= point) characters_.resize(point + 1, kNoId);
    characters_[point] = id;
  }

  void read_wholes(const Vocabulary& vocabulary) {
    for (std::size_t id = 0; id < vocabulary.pieces.size(); ++id) {
      if (vocabulary.roles[id] != Role::kText) continue;
      wholes_.emplace(*spelled_bytes(vocabulary.pieces[id]), static_cast<Id>(id));
    }
  }

  void read_symbols(std::string_view chunk, std::vector<Symbol>& symbols) const {
    check_length(chunk);
    symbols.clear();
    const auto add = [&](Id id) {
      const int index = static_cast<int>(symbols.size());
      symbols.push_back({id, index - 1, index + 1, true});
    };
    if (byte_level_) {
      for (const char byte : chunk) {
        const Id id = (*bytes_)[static_cast<unsigned char>(byte)];
        if (id != kNoId) add(id);
      }
    }
    for (std::size_t position = byte_level_ ? chunk.size() : 0; position < chunk.size();) {
      const std::size_t length = utf8_length(static_cast<unsigned char>(chunk[position]));
      const std::string_view character = chunk.substr(position, length);
      const std::uint32_t point = code_point(character);
      const Id id = point < characters_.size() ? characters_[point] : kNoId;
      if (id != kNoId) {
        add(id);
      } else if (spells(character)) {
        for (const char byte : character) add((*bytes_)[static_cast<unsigned char>(byte)]);
      } else if (unknown_ != kNoId) {
        if (!fuse_unknown_ || symbols.empty() || symbols.back().id != unknown_) add(unknown_);
      }
      position += length;
    }
    if (!symbols.empty()) symbols.back().next = -1;
  }

  // Whether there is a byte token for each byte of a character.
  bool spells(std::string_view character) const {
    return bytes_ && std::all_of(character.begin(), character.end(), [&](char byte) {
             return (*bytes_)[static_cast<unsigned char>(byte)] != kNoId;
           });
  }

  void write_symbols(const std::vector<Symbol>& symbols, std::vector<Id>& out) const {
    const std::size_t first = out.size();
    for (const Symbol& symbol : symbols) {
      if (!symbol.alive) continue;
      if (symbol.id < first_stranger_) {
        out.push_back(symbol.id);
      } else {
        write_stranger(strangers_[symbol.id - first_stranger_], first, out);
      }
    }
  }

  // A character that could be part of a piece and has become none.
  void write_stranger(std::uint32_t point, std::size_t first, std::vector<Id>& out) const {
    std::string character;
    append_utf8(point, character);
    if (spells(character)) {
      for (const char byte : character) out.push_back((*bytes_)[static_cast<unsigned char>(byte)]);
    } else if (unknown_ != kNoId) {
      const bool fuses = fuse_unknown_ && out.size() > first && out.back() == unknown_;
      if (!fuses) out.push_back(unknown_);
    }
  }

  void push(Scratch& scratch, int left, int right) const {
    if (left < 0 || right < 0) return;
    const auto* found = merges_.find(scratch.symbols[left].id, scratch.symbols[right].id);
    if (found == nullptr) return;
    scratch.queue.push_back({found->first, left, found->second});
    std::push_heap(scratch.queue.begin(), scratch.queue.end());
  }

  void merge_all(Scratch& scratch) const {
    find_candidates(scratch);
    while (!scratch.queue.empty()) merge(scratch, pop(scratch));
  }

  // BPE-dropout (Provilkov et al. 2020, algorithm 1): at every step each possible merge is left out
  // with the given probability, and the first of those that stay is made.
  void merge_some(Scratch& scratch, double dropout, core::Random& random) const {
    auto& [symbols, queue, dropped] = scratch;
    find_candidates(scratch);
    dropped.clear();
    while (!queue.empty()) {
      const Candidate top = pop(scratch);
      if (random.uniform() < dropout) {
        dropped.push_back(top);
        continue;
      }
      for (const Candidate& candidate : dropped) {
        queue.push_back(candidate);
        std::push_heap(queue.begin(), queue.end());
      }
      dropped.clear();
      merge(scratch, top);
    }
  }

  void find_candidates(Scratch& scratch) const {
    scratch.queue.clear();
    for (int i = 0; i + 1 < static_cast<int>(scratch.symbols.size()); ++i) push(scratch, i, i + 1);
  }

  static Candidate pop(Scratch& scratch) {
    std::pop_heap(scratch.queue.begin(), scratch.queue.end());
    const Candidate top = scratch.queue.back();
    scratch.queue.pop_back();
    return top;
  }

  void merge(Scratch& scratch, const Candidate& top) const {
    auto& symbols = scratch.symbols;
    Symbol& left = symbols[top.position];
    if (!left.alive || left.next < 0) return;
    Symbol& right = symbols[left.next];
    const auto* found = merges_.find(left.id, right.id);
    if (found == nullptr || found->second != top.result) return;  // the pair has changed
    left.id = top.result;
    left.next = right.next;
    right.alive = false;
    if (left.next >= 0) symbols[left.next].previous = top.position;
    push(scratch, left.previous, top.position);
    push(scratch, top.position, left.next);
  }

  PairTable merges_;            // (left, right) → (rank, result)
  std::vector<Id> characters_;  // by code point
  std::optional<std::array<Id, 256>> bytes_;
  bool byte_level_;  // every byte starts as a symbol of its own
  std::unordered_map<std::string, Id, StringHash, std::equal_to<>> wholes_;  // of whole_first
  bool fuse_unknown_;
  Id first_stranger_;
  std::vector<std::uint32_t> strangers_;  // by id from first_stranger_ on
  Id unknown_;
};

}  // namespace

std::unique_ptr<Model> make_bpe(const Vocabulary& vocabulary) {
  return std::make_unique<Bpe>(vocabulary);
}

}  // namespace omnima::text
