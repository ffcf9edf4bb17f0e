#include "omnima/text/merge_lines.h"

#include <string>

#include "omnima/core/error.h"

namespace omnima::text {
namespace {

bool joins(std::string_view left, std::string_view right, std::string_view both) {
  return both.size() == left.size() + right.size() && both.starts_with(left) &&
         both.ends_with(right);
}

}  // namespace

std::vector<Merge> merges_of_lines(const PieceIndex& pieces,
                                   std::span<const std::string_view> lines) {
  const auto all = pieces.pieces();
  std::vector<Merge> merges;
  merges.reserve(lines.size());
  std::string both;
  Id expected = 0;  // most files list pieces in the order of the merges that make them
  for (const std::string_view line : lines) {
    const std::size_t space = line.find(' ');
    const std::string_view left = line.substr(0, space);
    const std::string_view right = space < line.size() ? line.substr(space + 1) : "";
    const Id first = pieces.find(left), second = pieces.find(right);
    Id result = expected;
    if (result >= all.size() || !joins(left, right, all[result]) || pieces.holds_twice()) {
      result = pieces.find(both.assign(left).append(right));
    }
    core::require<core::DataError>(first != kNoId && second != kNoId && result != kNoId,
                                   "the merge '", line, "' is not of tokens that are there");
    merges.push_back({first, second, result});
    expected = result + 1;
  }
  return merges;
}

}  // namespace omnima::text
