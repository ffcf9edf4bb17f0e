// What each token of a vocabulary decodes to, before its bytes are joined to text.
#pragma once

#include <string>
#include <vector>

#include "omnima/text/vocabulary.h"

namespace omnima::text {

constexpr char kReplacement[] = "\xEF\xBF\xBD";  // U+FFFD, what an unknown character decodes to

// The bytes of each token; marks are spaces already.
std::vector<std::string> decoded_pieces(const Vocabulary& vocabulary);

}  // namespace omnima::text
