#include "omnima/generate/fingerprint.h"

#include <algorithm>
#include <cstring>

namespace omnima::generate {
namespace {

constexpr std::int64_t kPlaces = 64;  // of a tensor

}  // namespace

// The finalizer of splitmix64 (Steele, Lea and Flood 2014) over all that came before.
void Fingerprint::add(std::uint64_t number) {
  std::uint64_t x = value_ ^ number;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  value_ = (x ^ (x >> 31)) + 0x9e3779b97f4a7c15;
}

void Fingerprint::add(std::string_view text) {
  for (const char c : text) add(static_cast<std::uint64_t>(static_cast<unsigned char>(c)));
  add(text.size());
}

void Fingerprint::add(const at::Tensor& tensor) {
  add(tensor.defined());
  if (!tensor.defined()) return;
  add(static_cast<std::uint64_t>(tensor.scalar_type()));
  for (const std::int64_t size : tensor.sizes()) add(static_cast<std::uint64_t>(size));
  if (!tensor.is_inference()) add(static_cast<std::uint64_t>(tensor._version()));
  if (!tensor.is_contiguous() || !tensor.device().is_cpu()) return;
  constexpr std::int64_t kWord = sizeof(std::uint64_t);
  const auto* bytes = static_cast<const char*>(tensor.const_data_ptr());
  const auto size = static_cast<std::int64_t>(tensor.nbytes());
  const std::int64_t places = std::min(kPlaces, (size + kWord - 1) / kWord);
  for (std::int64_t i = 0; i < places; ++i) {
    // The last one ends where the tensor ends.
    const std::int64_t at = places == 1 ? 0 : (size - kWord) * i / (places - 1);
    std::uint64_t word = 0;
    std::memcpy(&word, bytes + at, static_cast<std::size_t>(std::min(kWord, size - at)));
    add(word);
  }
}

}  // namespace omnima::generate
