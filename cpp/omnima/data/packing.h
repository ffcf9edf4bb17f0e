// Whole documents put together in rows of equal length, the same way every time.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace omnima::data {

// Tokens that become labels of one row: a whole document, or a cut of one longer than a row.
struct Stretch {
  std::uint64_t start = 0;
  std::uint32_t length = 0;
  bool begins_document = true;
};

struct PackedRows {
  std::vector<Stretch> stretches;       // of all rows, in order
  std::vector<std::uint64_t> row_ends;  // where each row's stretches end
};

// Best fit over a bounded number of open rows, documents in order of the stream.
PackedRows pack_documents(std::span<const std::uint64_t> document_ends, std::uint32_t time);

}  // namespace omnima::data
