// Ids back to text: what each token says, where a text begins, and what broken UTF-8 becomes.
#include <algorithm>
#include <map>
#include <utility>

#include "omnima/core/error.h"
#include "omnima/text/decoded_pieces.h"
#include "omnima/text/tokenizer.h"
#include "omnima/text/utf8.h"

namespace omnima::text {
namespace {

constexpr char kUnknownSurface[] = " \xE2\x81\x87 ";  // U+2047: the unknown with SentencePiece

// The tokens that decode to something else than their piece.
std::map<std::size_t, std::string> exceptions(const Vocabulary& vocabulary) {
  std::map<std::size_t, std::string> all;
  if (!vocabulary.byte_level()) {
    const auto bytes = byte_ids(vocabulary);
    for (int byte = 0; bytes && byte < 256; ++byte) {
      const Id id = (*bytes)[byte];
      if (id != kNoId) all[id] = std::string(1, static_cast<char>(byte));
    }
  }
  if (vocabulary.marking && vocabulary.marking->in_normalizer &&
      !vocabulary.marking->sentencepiece) {
    // Found in normalized text, such a token has the mark before it in itself.
    for (const Found& each : vocabulary.found) {
      if (each.after_normalizer) all[each.id] = unmarked(each.text);
    }
  }
  if (vocabulary.unknown) {
    if (!vocabulary.marking) all[*vocabulary.unknown] = kReplacement;
    if (vocabulary.marking && vocabulary.marking->sentencepiece) {
      all[*vocabulary.unknown] = kUnknownSurface;
    }
  }
  return all;
}

}  // namespace

DecodedPieces::DecodedPieces(const Vocabulary& vocabulary) {
  const auto others = exceptions(vocabulary);
  auto other = others.begin();
  std::size_t most = 0;
  for (const std::string& piece : vocabulary.pieces) most += piece.size();
  for (const auto& [id, text] : others) most += text.size();
  bytes_.reserve(most);
  begins_.reserve(vocabulary.pieces.size() + 1);
  begins_.push_back(0);
  for (std::size_t id = 0; id < vocabulary.pieces.size(); ++id) {
    if (other != others.end() && other->first == id) {
      bytes_ += (other++)->second;
    } else if (vocabulary.byte_level() && vocabulary.roles[id] == Role::kText) {
      core::require<core::DataError>(append_spelled(vocabulary.pieces[id], bytes_), "piece ", id,
                                     " of the byte-level vocabulary is '", vocabulary.pieces[id],
                                     "', which has a character that stands for no byte");
    } else {
      bytes_ += vocabulary.pieces[id];
    }
    begins_.push_back(bytes_.size());
  }
}

void Tokenizer::check_id(Id id) const {
  core::require<core::DataError>(id < size(), "token id ", id, " is outside of the vocabulary of ",
                                 size(), " pieces (0 to ", size() - 1, ")");
}

bool Tokenizer::is_shown(Id id, bool skip_special) const {
  if (!skip_special || vocabulary_.roles[id] != Role::kSpecial) return true;
  const bool always = !vocabulary_.marking || vocabulary_.marking->sentencepiece;
  return always && vocabulary_.unknown == id;
}

Opening Tokenizer::opening(std::span<const Id> after, bool skip_special) const {
  if (!vocabulary_.marking) return Opening::kNothing;
  for (const Id id : after) check_id(id);
  const bool begins =
      std::none_of(after.begin(), after.end(), [&](Id id) { return is_shown(id, skip_special); });
  const Prefix prefix = vocabulary_.marking->prefix;
  const bool marks_each = prefix == Prefix::kAlways || prefix == Prefix::kEvery;
  const bool behind_special =
      marks_each && !after.empty() && vocabulary_.roles[after.back()] == Role::kSpecial;
  return begins || behind_special ? vocabulary_.marking->opening : Opening::kNothing;
}

void Tokenizer::append_bytes(Id id, bool skip_special, Opening& opening, std::string& out) const {
  check_id(id);
  if (!is_shown(id, skip_special)) return;
  std::string_view bytes = bytes_[id];
  if (opening == Opening::kNothing) {
    out += bytes;
    return;
  }
  const bool is_byte = vocabulary_.roles[id] == Role::kByte;
  const bool marked = !is_byte && vocabulary_.pieces[id].starts_with(kSpaceMark);
  switch (std::exchange(opening, Opening::kNothing)) {
    case Opening::kPiece:
      for (std::string_view piece = vocabulary_.pieces[id]; !is_byte && !piece.empty();) {
        const std::size_t next = piece.find(kSpaceMark);
        out.append(piece, 0, next);
        piece.remove_prefix(next == std::string_view::npos ? piece.size()
                                                           : next + kSpaceMark.size());
      }
      if (is_byte) out += bytes;
      return;
    case Opening::kSpace:
      if (bytes.starts_with(' ')) bytes.remove_prefix(1);
      break;
    case Opening::kMarks:
      if (marked) bytes.remove_prefix(1);
      if (bytes.empty()) opening = Opening::kMarks;
      break;
    default:
      if (marked) bytes.remove_prefix(1);
  }
  out += bytes;
}

std::string Tokenizer::decode(std::span<const Id> ids, bool skip_special,
                              std::span<const Id> after) const {
  const bool whole_runs = vocabulary_.marking && !vocabulary_.marking->sentencepiece;
  Opening left = opening(after, skip_special);
  // Hugging Face strips the space of the whole text, after byte tokens have become characters.
  const bool strip = left == Opening::kSpace;
  if (strip) left = Opening::kNothing;
  std::string bytes;
  std::optional<std::size_t> run;  // where the byte tokens began that came last
  const auto end_run = [&] {
    if (!run) return;
    const std::size_t length = bytes.size() - *run;
    if (find_invalid_utf8(std::string_view(bytes).substr(*run)) != std::string_view::npos) {
      bytes.resize(*run);
      for (std::size_t i = 0; i < length; ++i) bytes += kReplacement;
    }
    run.reset();
  };
  for (const Id id : ids) {
    check_id(id);
    if (whole_runs && is_shown(id, skip_special)) {
      if (vocabulary_.roles[id] != Role::kByte) {
        end_run();
      } else if (!run) {
        run = bytes.size();
      }
    }
    append_bytes(id, skip_special, left, bytes);
  }
  end_run();
  if (strip && bytes.starts_with(' ')) bytes.erase(0, 1);
  if (find_invalid_utf8(bytes) == std::string_view::npos) return bytes;
  std::string text;
  append_replaced(bytes, false, text, replaces_each_byte());
  return text;
}

const std::string& Tokenizer::piece(Id id) const {
  check_id(id);
  return vocabulary_.pieces[id];
}

}  // namespace omnima::text
