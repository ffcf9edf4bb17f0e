// Small vocabularies for the tests of this folder.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "omnima/text/vocabulary.h"

namespace omnima::text {

// <pad> <s> </s>, the 256 byte tokens, then the pieces; every way to merge a piece from two others.
inline Vocabulary make_vocabulary(Algorithm algorithm, const std::vector<std::string>& pieces) {
  Vocabulary vocabulary;
  vocabulary.algorithm = algorithm;
  const auto add = [&](std::string piece, Role role) {
    vocabulary.pieces.push_back(std::move(piece));
    vocabulary.roles.push_back(role);
  };
  for (const char* special : {"<pad>", "<s>", "</s>"}) add(special, Role::kSpecial);
  for (int byte = 0; byte < 256; ++byte) {
    constexpr char kDigits[] = "0123456789ABCDEF";
    add(std::string("<0x") + kDigits[byte >> 4] + kDigits[byte & 15] + '>', Role::kByte);
  }
  for (const std::string& piece : pieces) add(piece, Role::kText);
  vocabulary.pad = 0;
  vocabulary.bos = 1;
  vocabulary.eos = 2;
  const auto id_of = [&](const std::string& piece) -> std::optional<Id> {
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      if (pieces[i] == piece) return static_cast<Id>(259 + i);
    }
    return std::nullopt;
  };
  for (const std::string& piece : pieces) {
    for (std::size_t cut = 1; cut < piece.size(); ++cut) {
      const auto left = id_of(piece.substr(0, cut)), right = id_of(piece.substr(cut));
      if (left && right) vocabulary.merges.push_back({*left, *right, *id_of(piece)});
    }
  }
  return vocabulary;
}

// A unigram vocabulary with the given score for each piece and a very low one for the rest.
inline Vocabulary make_unigram_vocabulary(const std::vector<std::string>& pieces,
                                          const std::vector<double>& scores) {
  Vocabulary vocabulary = make_vocabulary(Algorithm::kUnigram, pieces);
  vocabulary.merges.clear();
  vocabulary.scores.assign(259, -1000.0);
  vocabulary.scores.insert(vocabulary.scores.end(), scores.begin(), scores.end());
  return vocabulary;
}

}  // namespace omnima::text
