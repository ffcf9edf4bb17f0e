// What a tokenizer is made of, as plain data: pieces with their roles, and merges or scores.
#include "omnima/text/vocabulary.h"

#include <charconv>

#include "omnima/core/error.h"
#include "omnima/text/utf8.h"

namespace omnima::text {

using core::DataError;
using core::require;

namespace {

void check_id(const Vocabulary& vocabulary, std::optional<Id> id, const char* name) {
  require<DataError>(!id || *id < vocabulary.pieces.size(), "the ", name, " token id ",
                     id.value_or(0), " is outside of the vocabulary of ", vocabulary.pieces.size(),
                     " pieces");
}

void check_merges(const Vocabulary& vocabulary) {
  const std::size_t size = vocabulary.pieces.size();
  for (std::size_t rank = 0; rank < vocabulary.merges.size(); ++rank) {
    const auto& [left, right, result] = vocabulary.merges[rank];
    require<DataError>(left < size && right < size && result < size, "merge ", rank,
                       " names an id outside of the vocabulary of ", size, " pieces");
    require<DataError>(
        vocabulary.pieces[result] == vocabulary.pieces[left] + vocabulary.pieces[right], "merge ",
        rank, " does not give the piece '", vocabulary.pieces[result], "' that it names");
  }
}

}  // namespace

void check(const Vocabulary& vocabulary) {
  const std::size_t size = vocabulary.pieces.size();
  require<DataError>(size > 0, "a tokenizer needs at least one piece; the vocabulary is empty");
  require<DataError>(vocabulary.roles.size() == size, "the vocabulary has ", size, " pieces but ",
                     vocabulary.roles.size(), " roles; give one role a piece");
  for (std::size_t id = 0; id < size; ++id) {
    require<DataError>(!vocabulary.pieces[id].empty(), "piece ", id, " of the vocabulary is empty");
    require<DataError>(find_invalid_utf8(vocabulary.pieces[id]) == std::string_view::npos, "piece ",
                       id, " of the vocabulary is not valid UTF-8");
  }
  if (vocabulary.algorithm == Algorithm::kUnigram) {
    require<DataError>(vocabulary.scores.size() == size, "the unigram vocabulary has ", size,
                       " pieces but ", vocabulary.scores.size(), " scores; give one score a piece");
  }
  check_id(vocabulary, vocabulary.unknown, "unknown");
  check_id(vocabulary, vocabulary.bos, "begin");
  check_id(vocabulary, vocabulary.eos, "end");
  check_id(vocabulary, vocabulary.pad, "padding");
  check_merges(vocabulary);
}

std::optional<std::array<Id, 256>> byte_ids(const Vocabulary& vocabulary) {
  std::array<Id, 256> ids{};
  std::array<bool, 256> seen{};
  int count = 0;
  for (std::size_t id = 0; id < vocabulary.pieces.size(); ++id) {
    if (vocabulary.roles[id] != Role::kByte) continue;
    const std::string& piece = vocabulary.pieces[id];
    unsigned value = 256;
    if (piece.size() == 6) std::from_chars(piece.data() + 3, piece.data() + 5, value, 16);
    require<DataError>(value < 256 && !seen[value], "the byte token ", id, " is '", piece,
                       "'; expected each of <0x00> to <0xFF> once");
    seen[value] = true;
    ids[value] = static_cast<Id>(id);
    ++count;
  }
  if (count == 0) return std::nullopt;
  require<DataError>(count == 256, "the vocabulary has ", count,
                     " byte tokens; expected all of <0x00> to <0xFF> or none");
  return ids;
}

}  // namespace omnima::text
