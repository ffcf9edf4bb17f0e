// Best-fit packing with a bounded number of open rows: one pass, little waste.
#include "omnima/data/packing.h"

#include <algorithm>

namespace omnima::data {
namespace {

constexpr std::size_t kOpenRows = 64;

struct OpenRow {
  std::uint32_t room;
  std::vector<Stretch> stretches;
};

void close_row(const OpenRow& row, PackedRows& packed) {
  packed.stretches.insert(packed.stretches.end(), row.stretches.begin(), row.stretches.end());
  packed.row_ends.push_back(packed.stretches.size());
}

}  // namespace

PackedRows pack_documents(std::span<const std::uint64_t> document_ends, std::uint32_t time) {
  PackedRows packed;
  std::vector<OpenRow> open;
  const auto place = [&](const Stretch& stretch) {
    auto best = open.end();
    for (auto row = open.begin(); row != open.end(); ++row) {
      if (row->room >= stretch.length && (best == open.end() || row->room < best->room)) best = row;
    }
    if (best == open.end()) {
      if (open.size() == kOpenRows) {  // the fullest makes place
        const auto full = std::ranges::min_element(open, {}, &OpenRow::room);
        close_row(*full, packed);
        open.erase(full);
      }
      open.push_back({time, {}});
      best = open.end() - 1;
    }
    best->stretches.push_back(stretch);
    best->room -= stretch.length;
    if (best->room == 0) {
      close_row(*best, packed);
      open.erase(best);
    }
  };
  std::uint64_t start = 0;
  for (const std::uint64_t end : document_ends) {
    for (std::uint64_t at = start; at < end; at += time) {
      place({at, static_cast<std::uint32_t>(std::min<std::uint64_t>(time, end - at)), at == start});
    }
    start = end;
  }
  for (const OpenRow& row : open) close_row(row, packed);
  return packed;
}

}  // namespace omnima::data
