// Pieces of prompts that were read, kept in their pages for prompts that begin the same way.
#pragma once

#include <cstdint>
#include <list>
#include <span>
#include <unordered_map>
#include <vector>

#include "omnima/generate/options.h"
#include "omnima/generate/pages.h"

namespace omnima::generate {

// A piece is known by its tokens and by the piece before it, back to what computes the model's
// numbers. For one thread.
class PrefixCache {
 public:
  // Holds at most so many pages; those that were used last stay.
  explicit PrefixCache(std::int64_t max_pages) : max_pages_(max_pages) {}

  // Of a piece behind the one with this key; of a first piece: behind what computes it.
  static std::uint64_t key_of(std::uint64_t before, std::span<const std::int64_t> ids);

  // Its pages; none: it is not known.
  std::vector<Page> find(std::uint64_t before, std::span<const std::int64_t> ids);
  void keep(std::uint64_t before, std::span<const std::int64_t> ids, std::vector<Page> pages);
  // Forgets pieces until so many pages are free, those first that were not used for longest; false,
  // and forgets nothing, where those that nobody else holds are too few.
  bool free_pages(std::int64_t count);

  // Those that nobody else holds.
  std::int64_t idle_pages() const;

 private:
  struct Piece {
    std::uint64_t key, before;
    Ids ids;
    std::vector<Page> pages;
  };

  void forget(std::list<Piece>::iterator piece);

  std::int64_t max_pages_, pages_ = 0;
  std::list<Piece> pieces_;  // the one that was used last is first
  std::unordered_map<std::uint64_t, std::list<Piece>::iterator> at_;
};

}  // namespace omnima::generate
