// Unigram language model segmentation (Kudo 2018): the cut with the highest sum of
// log-probabilities, by Viterbi. Of equal sums the one met first stays, as in Hugging Face
// tokenizers, so ids agree exactly. Or a cut drawn from all of them, by forward filtering and
// backward sampling.
#include <algorithm>
#include <cmath>
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

// A stretch of the chunk that can be one piece, in a list of those that end where it does.
struct Edge {
  double weight;  // log of the summed weights of all ways that end with it
  int start;
  int next;  // -1: the last of its list
  Id id;
};

// All ways through a chunk: the log of their summed weights at each position, and their edges.
struct Lattice {
  std::vector<double> sums;
  std::vector<int> edges_to;  // by end, the first edge of the list; -1: none
  std::vector<Edge> edges;
};

struct Scratch {
  std::vector<Arrival> arrivals;
  std::vector<int> ends;
  Lattice lattice;
  std::vector<const Edge*> path;  // of the drawn cut, last piece first
};

// log(exp(a) + exp(b)), exact where one is far below the other.
double log_sum(double a, double b) {
  const auto [low, high] = std::minmax(a, b);
  return high + std::log1p(std::exp(low - high));
}

class Unigram final : public Model {
 public:
  explicit Unigram(const Vocabulary& vocabulary)
      : edges_(total_bytes(vocabulary)),
        scores_(vocabulary.scores),
        bytes_(byte_ids(vocabulary)),
        unknown_(vocabulary.unknown.value_or(kNoId)),
        single_(vocabulary.marking && vocabulary.marking->sentencepiece) {
    core::require<core::DataError>(bytes_.has_value() || vocabulary.unknown,
                                   "a unigram tokenizer needs the 256 byte tokens <0x00> to <0xFF> "
                                   "or an unknown token in its vocabulary; it has none");
    piece_of_node_.push_back(kNoPiece);
    unknown_score_ = *std::min_element(scores_.begin(), scores_.end()) - kUnknownPenalty;
    for (std::size_t id = 0; id < vocabulary.pieces.size(); ++id) {
      const Role role = vocabulary.roles[id];
      // Hugging Face tokenizers find a byte token written out in a text, too.
      const bool byte_as_text =
          role == Role::kByte && vocabulary.marking && !vocabulary.marking->sentencepiece;
      if (role != Role::kText && role != Role::kUser && !byte_as_text) continue;
      insert(vocabulary.pieces[id], static_cast<Id>(id));
    }
    if (single_) prefer_users(vocabulary);
  }

  void encode(std::string_view chunk, std::vector<Id>& out) const override {
    thread_local Scratch scratch;
    find_best_cut(chunk, scratch.arrivals);
    auto& ends = scratch.ends;
    ends.clear();
    for (int end = static_cast<int>(chunk.size()); end > 0; end = scratch.arrivals[end].start) {
      ends.push_back(end);
    }
    const std::size_t first = out.size();
    for (auto end = ends.rbegin(); end != ends.rend(); ++end) {
      const Arrival& arrival = scratch.arrivals[*end];
      append(arrival.id, chunk.substr(arrival.start, *end - arrival.start), first, out);
    }
  }

  void encode_by_chance(std::string_view chunk, double alpha, core::Random& random,
                        std::vector<Id>& out) const override {
    thread_local Scratch scratch;
    fill_lattice(chunk, alpha, scratch.lattice);
    auto& path = scratch.path;
    path.clear();
    for (int end = static_cast<int>(chunk.size()); end > 0; end = path.back()->start) {
      path.push_back(&draw(scratch.lattice, end, random));
    }
    const std::size_t first = out.size();
    for (auto edge = path.rbegin(); edge != path.rend(); ++edge) {
      const int end = edge + 1 == path.rend() ? static_cast<int>(chunk.size()) : edge[1]->start;
      append((*edge)->id, chunk.substr((*edge)->start, end - (*edge)->start), first, out);
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

  // SentencePiece's rule for what users define: a score that beats all other cuts.
  void prefer_users(const Vocabulary& vocabulary) {
    double least = std::numeric_limits<double>::max();
    double most = std::numeric_limits<float>::min();  // its search begins above zero
    for (std::size_t id = 0; id < vocabulary.pieces.size(); ++id) {
      if (vocabulary.roles[id] != Role::kText) continue;
      least = std::min(least, scores_[id]);
      most = std::max(most, scores_[id]);
    }
    for (std::size_t id = 0; id < vocabulary.pieces.size(); ++id) {
      if (vocabulary.roles[id] != Role::kUser) continue;
      const float longest =
          static_cast<float>(vocabulary.pieces[id].size()) * static_cast<float>(most);
      scores_[id] = static_cast<float>(static_cast<double>(longest) - 0.1);
    }
    unknown_score_ = least - kUnknownPenalty;
  }

  // SentencePiece adds up in single precision, which decides between cuts that are about as good.
  double sum(double so_far, double score) const {
    if (!single_) return so_far + score;
    return static_cast<float>(so_far) + static_cast<float>(score);
  }

  static void offer(Arrival& arrival, double score, int start, Id id) {
    if (arrival.start < 0 || score > arrival.score) arrival = {score, start, id};
  }

  // The piece, or what stands for a character without one: its bytes, or one unknown token for
  // all that follow each other. The chunk's ids begin at `first`.
  void append(Id id, std::string_view part, std::size_t first, std::vector<Id>& out) const {
    if (id != kNoPiece) {
      out.push_back(id);
      return;
    }
    const auto id_of = [&](char byte) { return (*bytes_)[static_cast<unsigned char>(byte)]; };
    const bool spelled = bytes_ && std::all_of(part.begin(), part.end(),
                                               [&](char byte) { return id_of(byte) != kNoId; });
    if (spelled) {
      for (const char byte : part) out.push_back(id_of(byte));
    } else if (unknown_ != kNoId && (out.size() == first || out.back() != unknown_)) {
      out.push_back(unknown_);
    }
  }

  // Visits the end, score and id of each piece that begins at start; where the character there has
  // none of its own, the bytes of it are one of them.
  template <class Visit>
  void for_each_piece(std::string_view chunk, std::size_t start, std::size_t length,
                      const Visit& visit) const {
    bool has_character = false;
    std::uint32_t node = 0;
    for (std::size_t end = start; end < chunk.size();) {
      const auto* edge = edges_.find(node, static_cast<unsigned char>(chunk[end]));
      if (edge == nullptr) break;
      node = edge->first;
      ++end;
      const Id id = piece_of_node_[node];
      if (id == kNoPiece) continue;
      visit(end, scores_[id], id);
      has_character = has_character || end - start == length;
    }
    if (!has_character) visit(start + length, unknown_score_, kNoPiece);
  }

  void find_best_cut(std::string_view chunk, std::vector<Arrival>& arrivals) const {
    check_length(chunk);
    arrivals.assign(chunk.size() + 1, {0.0, -1, kNoPiece});
    for (std::size_t start = 0, length = 0; start < chunk.size(); start += length) {
      length = utf8_length(static_cast<unsigned char>(chunk[start]));
      const double so_far = arrivals[start].score;
      for_each_piece(chunk, start, length, [&](std::size_t end, double score, Id id) {
        offer(arrivals[end], sum(so_far, score), static_cast<int>(start), id);
      });
    }
  }

  // Forward filtering: sums the weights exp(alpha * score) of all ways to each position.
  void fill_lattice(std::string_view chunk, double alpha, Lattice& lattice) const {
    check_length(chunk);
    auto& [sums, edges_to, edges] = lattice;
    sums.assign(chunk.size() + 1, 0.0);
    edges_to.assign(chunk.size() + 1, -1);
    edges.clear();
    for (std::size_t start = 0, length = 0; start < chunk.size(); start += length) {
      length = utf8_length(static_cast<unsigned char>(chunk[start]));
      const double so_far = sums[start];
      for_each_piece(chunk, start, length, [&](std::size_t end, double score, Id id) {
        const double weight = so_far + alpha * score;
        sums[end] = edges_to[end] < 0 ? weight : log_sum(sums[end], weight);
        edges.push_back({weight, static_cast<int>(start), edges_to[end], id});
        edges_to[end] = static_cast<int>(edges.size()) - 1;
      });
    }
  }

  // Backward sampling: one of the edges to a position, by its share of the ways there.
  static const Edge& draw(const Lattice& lattice, int end, core::Random& random) {
    double left = random.uniform();
    const Edge* edge = &lattice.edges[lattice.edges_to[end]];
    while (edge->next >= 0) {
      left -= std::exp(edge->weight - lattice.sums[end]);
      if (left < 0.0) break;
      edge = &lattice.edges[edge->next];
    }
    return *edge;
  }

  PairTable edges_;                           // (node, byte) → (node, unused): a prefix tree
  std::vector<std::uint32_t> piece_of_node_;  // kNoPiece inside of a piece
  std::vector<double> scores_;
  std::optional<std::array<Id, 256>> bytes_;
  Id unknown_;   // kNoId: none
  bool single_;  // rules of SentencePiece
  double unknown_score_;
};

}  // namespace

std::unique_ptr<Model> make_unigram(const Vocabulary& vocabulary) {
  return std::make_unique<Unigram>(vocabulary);
}

}  // namespace omnima::text
