// Merges as files list them: a line of two pieces and a space between.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "omnima/text/piece_index.h"
#include "omnima/text/vocabulary.h"

namespace omnima::text {

// The ids of both pieces and of what they make; DataError where one of the three is no piece.
std::vector<Merge> merges_of_lines(const PieceIndex& pieces,
                                   std::span<const std::string_view> lines);

}  // namespace omnima::text
