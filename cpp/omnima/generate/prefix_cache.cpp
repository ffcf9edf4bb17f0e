#include "omnima/generate/prefix_cache.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "omnima/core/mix.h"

namespace omnima::generate {

namespace {

// Pages that the cache alone holds.
std::int64_t idle_of(const std::vector<Page>& pages) {
  return std::ranges::count_if(pages, [](const Page& page) { return page.use_count() == 1; });
}

}  // namespace

std::uint64_t PrefixCache::key_of(std::uint64_t before, std::span<const std::int64_t> ids) {
  std::uint64_t key = core::mix(before, static_cast<std::uint64_t>(ids.size()));
  for (const std::int64_t id : ids) key = core::mix(key, static_cast<std::uint64_t>(id));
  return key;
}

std::vector<Page> PrefixCache::find(std::uint64_t before, std::span<const std::int64_t> ids) {
  const auto found = at_.find(key_of(before, ids));
  if (found == at_.end()) return {};
  const auto piece = found->second;
  if (piece->before != before || !std::ranges::equal(piece->ids, ids)) return {};
  pieces_.splice(pieces_.begin(), pieces_, piece);
  return piece->pages;
}

void PrefixCache::keep(std::uint64_t before, std::span<const std::int64_t> ids,
                       std::vector<Page> pages) {
  const auto count = std::ssize(pages);
  const std::uint64_t key = key_of(before, ids);
  if (count > max_pages_ || at_.contains(key)) return;
  while (pages_ + count > max_pages_) forget(std::prev(pieces_.end()));
  pieces_.push_front({key, before, {ids.begin(), ids.end()}, std::move(pages)});
  at_[key] = pieces_.begin();
  pages_ += count;
}

void PrefixCache::forget(std::list<Piece>::iterator piece) {
  pages_ -= std::ssize(piece->pages);
  at_.erase(piece->key);
  pieces_.erase(piece);
}

bool PrefixCache::free_pages(std::int64_t count) {
  if (idle_pages() < count) return false;
  for (auto piece = pieces_.end(); count > 0 && piece != pieces_.begin();) {
    --piece;
    const std::int64_t idle = idle_of(piece->pages);
    if (idle == 0) continue;  // a text goes on with it
    count -= idle;
    const auto oldest = piece++;
    forget(oldest);
  }
  return true;
}

std::int64_t PrefixCache::idle_pages() const {
  std::int64_t idle = 0;
  for (const Piece& piece : pieces_) idle += idle_of(piece.pages);
  return idle;
}

}  // namespace omnima::generate
