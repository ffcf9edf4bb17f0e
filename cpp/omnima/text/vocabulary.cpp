// What a tokenizer is made of, as plain data: pieces with their roles, and merges or scores.
#include "omnima/text/vocabulary.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "omnima/core/error.h"
#include "omnima/text/unicode.h"
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
    const std::string_view first = vocabulary.pieces[left], second = vocabulary.pieces[right];
    const std::string_view both = vocabulary.pieces[result];
    require<DataError>(both.size() == first.size() + second.size() && both.starts_with(first) &&
                           both.ends_with(second),
                       "merge ", rank, " does not give the piece '", both, "' that it names");
  }
}

// By the alphabet's characters: the byte of each, or -1.
const std::array<int, 0x144>& spelled_byte() {
  static const auto byte_of = [] {
    std::array<int, 0x144> bytes{};
    bytes.fill(-1);
    for (int byte = 0; byte < 256; ++byte) bytes[byte_alphabet()[byte]] = byte;
    return bytes;
  }();
  return byte_of;
}

// Calls back with each byte that a piece spells; false where a character spells none.
template <class Each>
bool for_each_spelled(std::string_view piece, const Each& each) {
  const auto& byte_of = spelled_byte();
  for (std::size_t at = 0; at < piece.size(); ++at) {
    // The alphabet's characters have two bytes at most.
    auto point = static_cast<std::uint32_t>(static_cast<unsigned char>(piece[at]));
    if (point >= 0x80) {
      if (point >= 0xE0 || at + 1 == piece.size()) return false;
      point = (point & 0x1F) << 6 | (static_cast<unsigned char>(piece[++at]) & 0x3F);
    }
    if (point >= byte_of.size() || byte_of[point] < 0) return false;
    each(byte_of[point]);
  }
  return true;
}

// The bytes by the spelling of each: what byte_ids() is to vocabularies with byte tokens.
std::array<Id, 256> byte_level_ids(const Vocabulary& vocabulary) {
  std::array<Id, 256> ids{};
  ids.fill(kNoId);
  for (std::size_t id = 0; id < vocabulary.pieces.size(); ++id) {
    const std::string& piece = vocabulary.pieces[id];
    // The alphabet's characters have two bytes at most.
    if (vocabulary.roles[id] != Role::kText || piece.size() > 2) continue;
    int last = 0;
    std::size_t count = 0;
    for_each_spelled(piece, [&](int byte) {
      last = byte;
      ++count;
    });
    if (count == 1) ids[static_cast<std::size_t>(last)] = static_cast<Id>(id);
  }
  // What every text needs; rarer bytes may be missing where a vocabulary was learnt without them.
  for (unsigned char byte = 0x20; byte < 0x7F; ++byte) {
    require<DataError>(ids[byte] != kNoId, "the byte-level vocabulary has no piece for the byte '",
                       static_cast<char>(byte), "'; it could not spell plain text");
  }
  return ids;
}

}  // namespace

void check(const Vocabulary& vocabulary) {
  const std::size_t size = vocabulary.pieces.size();
  require<DataError>(size > 0, "a tokenizer needs at least one piece; the vocabulary is empty");
  require<DataError>(!vocabulary.pattern || vocabulary.algorithm != Algorithm::kUnigram,
                     "a unigram vocabulary may have no pattern");
  require<DataError>(vocabulary.algorithm != Algorithm::kWord ||
                         (vocabulary.pattern.has_value() && vocabulary.unknown.has_value()),
                     "a vocabulary of words needs a pattern and an unknown token");
  require<DataError>(vocabulary.roles.size() == size, "the vocabulary has ", size, " pieces but ",
                     vocabulary.roles.size(), " roles; give one role a piece");
  for (std::size_t id = 0; id < size; ++id) {
    require<DataError>(!vocabulary.pieces[id].empty(), "piece ", id, " of the vocabulary is empty");
    require<DataError>(vocabulary.spelled_well ||
                           find_invalid_utf8(vocabulary.pieces[id]) == std::string_view::npos,
                       "piece ", id, " of the vocabulary is not valid UTF-8");
  }
  if (vocabulary.algorithm == Algorithm::kUnigram || !vocabulary.scores.empty()) {
    require<DataError>(vocabulary.scores.size() == size, "the vocabulary has ", size,
                       " pieces but ", vocabulary.scores.size(), " scores; give one score a piece");
    for (std::size_t id = 0; id < size; ++id) {
      require<DataError>(std::isfinite(vocabulary.scores[id]), "the score of piece ", id, " ('",
                         vocabulary.pieces[id], "') is ", vocabulary.scores[id],
                         "; expected a finite number");
    }
  }
  if (vocabulary.byte_level()) byte_level_ids(vocabulary);
  require<DataError>(!vocabulary.marking || !vocabulary.pattern,
                     "a vocabulary may mark spaces or have a pattern, not both");
  for (const Found& found : vocabulary.found) {
    require<DataError>(found.id < size && !found.text.empty(), "the token ", found.id,
                       " to be found in texts is empty or outside of the vocabulary of ", size,
                       " pieces");
  }
  check_id(vocabulary, vocabulary.unknown, "unknown");
  check_id(vocabulary, vocabulary.bos, "begin");
  check_id(vocabulary, vocabulary.eos, "end");
  check_id(vocabulary, vocabulary.pad, "padding");
  if (!vocabulary.spelled_well) check_merges(vocabulary);
}

std::optional<std::array<Id, 256>> byte_ids(const Vocabulary& vocabulary) {
  if (vocabulary.byte_level()) return byte_level_ids(vocabulary);
  std::array<Id, 256> ids{};
  ids.fill(kNoId);
  int count = 0;
  for (std::size_t id = 0; id < vocabulary.pieces.size(); ++id) {
    if (vocabulary.roles[id] != Role::kByte) continue;
    const std::string& piece = vocabulary.pieces[id];
    unsigned value = 256;
    if (piece.size() == 6) std::from_chars(piece.data() + 3, piece.data() + 5, value, 16);
    require<DataError>(value < 256 && ids[value] == kNoId, "the byte token ", id, " is '", piece,
                       "'; expected each of <0x00> to <0xFF> once");
    ids[value] = static_cast<Id>(id);
    ++count;
  }
  if (count == 0) return std::nullopt;
  require<DataError>(count == 256 || vocabulary.marking, "the vocabulary has ", count,
                     " byte tokens; expected all of <0x00> to <0xFF> or none");
  return ids;
}

const std::array<std::uint32_t, 256>& byte_alphabet() {
  static const auto alphabet = [] {
    std::array<std::uint32_t, 256> points{};
    std::uint32_t next = 0x100;
    for (std::uint32_t byte = 0; byte < 256; ++byte) {
      const bool printable = (byte > 0x20 && byte < 0x7F) || (byte > 0xA0 && byte != 0xAD);
      points[byte] = printable ? byte : next++;
    }
    return points;
  }();
  return alphabet;
}

bool append_spelled(std::string_view piece, std::string& out) {
  return for_each_spelled(piece, [&](int byte) { out += static_cast<char>(byte); });
}

std::optional<std::string> spelled_bytes(std::string_view piece) {
  std::string bytes;
  if (!append_spelled(piece, bytes)) return std::nullopt;
  return bytes;
}

}  // namespace omnima::text
