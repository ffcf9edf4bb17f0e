#include "omnima/text/merge_lines.h"

#include <string>
#include <unordered_map>

#include "omnima/core/error.h"

namespace omnima::text {

std::vector<Merge> merges_of_lines(std::span<const std::string_view> pieces,
                                   std::span<const std::string_view> lines) {
  std::unordered_map<std::string_view, Id> ids;
  ids.reserve(pieces.size());
  for (std::size_t i = 0; i < pieces.size(); ++i) ids.emplace(pieces[i], static_cast<Id>(i));
  std::vector<Merge> merges;
  merges.reserve(lines.size());
  std::string both;
  for (const std::string_view line : lines) {
    const std::size_t space = line.find(' ');
    const std::string_view left = line.substr(0, space);
    const std::string_view right = space < line.size() ? line.substr(space + 1) : "";
    both.assign(left).append(right);
    const auto first = ids.find(left), second = ids.find(right), result = ids.find(both);
    core::require<core::DataError>(first != ids.end() && second != ids.end() && result != ids.end(),
                                   "the merge '", line, "' is not of tokens that are there");
    merges.push_back({first->second, second->second, result->second});
  }
  return merges;
}

}  // namespace omnima::text
