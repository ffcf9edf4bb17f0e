// What a tokenizer is made of, as plain data: pieces with their roles, and merges or scores.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "omnima/text/marking.h"
#include "omnima/text/split.h"

namespace omnima::text {

using Id = std::uint32_t;
constexpr Id kNoId = ~Id{0};

enum class Role : std::uint8_t {
  kText = 0,     // ordinary text, the piece is its own meaning
  kByte = 1,     // one raw byte, "<0x41>"
  kSpecial = 2,  // control token: never comes from plain text, decodes to nothing unless asked
  kAdded = 3,    // as a control token, but always decodes to what it says
  kUser = 4,     // found in every text before anything is cut
};

enum class Algorithm { kBpe, kUnigram, kWord };

struct Merge {
  Id left, right, result;
};

// How a token is found in a text.
struct Found {
  Id id;
  std::string text;               // what is looked for
  bool strips_left = false;       // takes the white space before it along
  bool strips_right = false;      // and behind it
  bool after_normalizer = false;  // looked for where no other token was found, in normalized text
};

// The order of pieces gives the ids, the order of merges their rank. A BPE vocabulary with a
// pattern is byte-level: its text pieces spell bytes in the alphabet of byte_alphabet(), and its
// merges stay within what the pattern cuts. Words are what their pattern cuts. With a marking the
// pieces spell a space as U+2581.
struct Vocabulary {
  Algorithm algorithm = Algorithm::kBpe;
  std::vector<std::string> pieces;
  std::vector<Role> roles;
  std::vector<Merge> merges;   // BPE
  std::vector<double> scores;  // unigram: log-probabilities, one a piece; BPE without merges: the
                               // pair whose piece has the highest score is merged first
  std::vector<Found> found;    // special, added and user tokens that are not here: by their pieces
  std::optional<Id> unknown;   // the token of a character that nothing else covers
  std::optional<Id> bos, eos, pad;
  std::optional<Pattern> pattern;
  bool whole_first = false;  // byte-level: a cut that is a piece is that piece, whatever the merges
  bool nfc = false;          // text is brought to normalization form C first
  bool fuse_unknown = false;  // neighbouring unknown characters are one unknown token
  std::optional<Marking> marking;
  // Pieces are valid UTF-8 and merges give the pieces that they name: known where they come from.
  bool spelled_well = false;

  bool byte_level() const { return pattern.has_value() && algorithm == Algorithm::kBpe; }
};

// Throws DataError unless sizes, ids and roles fit together.
void check(const Vocabulary& vocabulary);

// The ids of the 256 byte tokens; empty when the vocabulary has none. Some but not all of them is a
// DataError, but for a marking, as Gemma's first files lack the tab. A byte-level vocabulary learnt
// from little text may lack a few, too. Those are kNoId: such a byte vanishes from a text, as it
// does with Hugging Face tokenizers.
std::optional<std::array<Id, 256>> byte_ids(const Vocabulary& vocabulary);

// The printable character that stands for each byte in a byte-level vocabulary: the byte's own
// where it has one in Latin-1, else the next from U+0100 on.
const std::array<std::uint32_t, 256>& byte_alphabet();

// Appends the bytes that a piece of a byte-level vocabulary spells; false where a character spells
// none.
bool append_spelled(std::string_view piece, std::string& out);
// The same by itself; empty where it spells none.
std::optional<std::string> spelled_bytes(std::string_view piece);

}  // namespace omnima::text
