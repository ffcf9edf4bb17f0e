// Unigram language model segmentation (Kudo 2018): the cut with the highest sum of
// log-probabilities, by Viterbi. Of equal sums the one met first stays, as in Hugging Face
// tokenizers, so ids agree exactly.
#include <algorithm>
#include <limits>

#include "omnima/core/error.h"
#include "omnima/text/model.h"
#include "omnima/text/pair_table.h"
#include "omnima/text/utf8.h"

namespace omnima::text {
namespace {

constexpr double kUnknownPenalty = 10.0;
constexpr std::uint32_t kNoPiece = ~0u;

// The best way found so far to reach a position of the chunk.
struct Arrival {
  double score;
  int start;  // -1: not reached yet
  Id id;      // kNoPiece: a character without a piece of its own
};

struct Scratch {
  std::vector<Arrival> arrivals;
  std::vector<int> ends;
};

class Unigram final : public Model {
 public:
  explicit Unigram(const Vocabulary& vocabulary)
      : edges_(total_bytes(vocabulary)), scores_(vocabulary.scores), bytes_(byte_ids(vocabulary)) {
    core::require<core::DataError>(bytes_.has_value(),
                                   "a unigram tokenizer needs the 256 byte tokens <0x00> to <0xFF> "
                                   "in its vocabulary; it has none");
    piece_of_node_.push_back(kNoPiece);
    for (std::size_t id = 0; id < vocabulary.pieces.size(); ++id) {
      if (vocabulary.roles[id] == Role::kText) insert(vocabulary.pieces[id], static_cast<Id>(id));
    }
    unknown_score_ = *std::min_element(scores_.begin(), scores_.end()) - kUnknownPenalty;
  }

  void encode(std::string_view chunk, std::vector<Id>& out) const override {
    thread_local Scratch scratch;
    find_best_cut(chunk, scratch.arrivals);
    auto& ends = scratch.ends;
    ends.clear();
    for (int end = static_cast<int>(chunk.size()); end > 0; end = scratch.arrivals[end].start) {
      ends.push_back(end);
    }
    for (auto end = ends.rbegin(); end != ends.rend(); ++end) {
      const Arrival& arrival = scratch.arrivals[*end];
      if (arrival.id != kNoPiece) {
        out.push_back(arrival.id);
        continue;
      }
      for (const char byte : chunk.substr(arrival.start, *end - arrival.start)) {
        out.push_back((*bytes_)[static_cast<unsigned char>(byte)]);
      }
    }
  }

 private:
  static std::size_t total_bytes(const Vocabulary& vocabulary) {
    std::size_t total = 0;
    for (const std::string& piece : vocabulary.pieces) total += piece.size();
    return total;
  }

  void insert(std::string_view piece, Id id) {
    std::uint32_t node = 0;
    for (const char byte : piece) {
      const auto label = static_cast<unsigned char>(byte);
      const auto* edge = edges_.find(node, label);
      if (edge == nullptr) {
        const auto fresh = static_cast<std::uint32_t>(piece_of_node_.size());
        piece_of_node_.push_back(kNoPiece);
        edges_.insert(node, label, {fresh, 0});
        node = fresh;
      } else {
        node = edge->first;
      }
    }
    piece_of_node_[node] = id;
  }

  static void offer(Arrival& arrival, double score, int start, Id id) {
    if (arrival.start < 0 || score > arrival.score) arrival = {score, start, id};
  }

  void find_best_cut(std::string_view chunk, std::vector<Arrival>& arrivals) const {
    arrivals.assign(chunk.size() + 1, {0.0, -1, kNoPiece});
    for (std::size_t start = 0; start < chunk.size();) {
      const double so_far = arrivals[start].score;
      const std::size_t length = utf8_length(static_cast<unsigned char>(chunk[start]));
      bool has_character = false;
      std::uint32_t node = 0;
      for (std::size_t end = start; end < chunk.size();) {
        const auto* edge = edges_.find(node, static_cast<unsigned char>(chunk[end]));
        if (edge == nullptr) break;
        node = edge->first;
        ++end;
        const Id id = piece_of_node_[node];
        if (id == kNoPiece) continue;
        offer(arrivals[end], so_far + scores_[id], static_cast<int>(start), id);
        has_character = has_character || end - start == length;
      }
      if (!has_character) {
        offer(arrivals[start + length], so_far + unknown_score_, static_cast<int>(start), kNoPiece);
      }
      start += length;
    }
  }

  PairTable edges_;                           // (node, byte) → (node, unused): a prefix tree
  std::vector<std::uint32_t> piece_of_node_;  // kNoPiece inside of a piece
  std::vector<double> scores_;
  std::optional<std::array<Id, 256>> bytes_;
  double unknown_score_;
};

}  // namespace

std::unique_ptr<Model> make_unigram(const Vocabulary& vocabulary) {
  return std::make_unique<Unigram>(vocabulary);
}

}  // namespace omnima::text
