// What a tokenizer is made of, as plain data: pieces with their roles, and merges or scores.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace omnima::text {

using Id = std::uint32_t;

enum class Role : std::uint8_t {
  kText = 0,     // ordinary text, the piece is its own meaning
  kByte = 1,     // one raw byte, "<0x41>"
  kSpecial = 2,  // control token: never comes from plain text, decodes to nothing unless asked
};

enum class Algorithm { kBpe, kUnigram };

struct Merge {
  Id left, right, result;
};

// The order of pieces gives the ids, the order of merges their rank.
struct Vocabulary {
  Algorithm algorithm = Algorithm::kBpe;
  std::vector<std::string> pieces;
  std::vector<Role> roles;
  std::vector<Merge> merges;   // BPE
  std::vector<double> scores;  // unigram, log-probabilities, one a piece
  std::optional<Id> unknown;   // the token of a character that nothing else covers
  std::optional<Id> bos, eos, pad;
};

// Throws DataError unless sizes, ids and roles fit together.
void check(const Vocabulary& vocabulary);

// The ids of the 256 byte tokens; empty when the vocabulary has none. Some but not all of them is a
// DataError.
std::optional<std::array<Id, 256>> byte_ids(const Vocabulary& vocabulary);

}  // namespace omnima::text
