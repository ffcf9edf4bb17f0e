// Block-sparse attention: a token sees the blocks near it and every n-th block of its
// document (local and strided, Child et al. 2019, in the blocks of Phi-3-small, Abdin et al. 2024).
#pragma once

#include <algorithm>
#include <cstdint>

namespace omnima::core {

struct BlockPattern {
  std::int64_t size = 0;    // tokens of a block, counted from the document's first; 0: all are seen
  std::int64_t local = 1;   // the token's own block and those right before it
  std::int64_t stride = 1;  // every n-th block is seen by all tokens after it
  std::int64_t shift = 0;   // by so many blocks earlier for each further head

  bool strided(std::int64_t head, std::int64_t block) const {
    return (block + 1 + head * shift) % stride == 0;
  }
  // A block of keys that does not come after the query's.
  bool sees(std::int64_t head, std::int64_t query_block, std::int64_t key_block) const {
    return query_block - key_block < local || strided(head, key_block);
  }

  // Calls f(begin, end) for the stretches of keys that a token of a document sees, in their order.
  template <class F>
  void for_stretches(std::int64_t head, std::int64_t token, F f) const {
    const std::int64_t own = token / size;
    for (std::int64_t block = 0; block <= own; ++block) {
      if (!sees(head, own, block)) continue;
      const std::int64_t begin = block * size;
      while (block < own && sees(head, own, block + 1)) ++block;
      f(begin, std::min((block + 1) * size, token + 1));
    }
  }
};

// The pairs of a query and a key that it sees, of all heads, in one document of `time` tokens. A
// window, where there is one, leaves the newest keys.
double seen_pairs(std::int64_t time, std::int64_t heads, std::int64_t window,
                  const BlockPattern& blocks);

}  // namespace omnima::core
