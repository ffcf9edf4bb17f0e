#include "omnima/quant/finite_look.h"

#include <algorithm>
#include <system_error>

#include "omnima/kernels/cpu/finite_halves.h"
#include "omnima/quant/formats/bits.h"

namespace omnima::quant {
namespace {

constexpr std::int64_t kPieceBytes = 1 << 18;
// Blocks up to a cache line: all lines are read anyway.
constexpr std::int64_t kMaskedBytes = 64;

// Whether the halves at `first` of all blocks have a bit of their exponent that is not set.
bool halves_are_finite(const std::uint8_t* first, std::int64_t stride, std::int64_t count) {
  unsigned special = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    // A full exponent carries into the bit above it.
    special |= (load_u16(first + i * stride) & 0x7c00u) + 0x0400u;
  }
  return (special & 0x8000u) == 0;
}

bool rows_are_finite(const Matrix& matrix, std::int64_t first, std::int64_t count) {
  const Format& format = *matrix.format;
  const std::int64_t blocks = matrix.inputs / format.numbers;
  const std::vector<std::int64_t>& halves = format.halves;
  const auto odd = [](std::int64_t place) { return place % 2 != 0; };
  if (!halves.empty() && format.bytes <= kMaskedBytes && !odd(format.bytes) &&
      std::none_of(halves.begin(), halves.end(), odd)) {
    const kernels::ExponentPattern pattern(format.bytes, halves, format.exponent);
    return kernels::halves_are_finite()(matrix.row(first), count * blocks * format.bytes / 2,
                                        pattern);
  }
  if (!halves.empty()) {
    return std::all_of(halves.begin(), halves.end(), [&](std::int64_t half) {
      return halves_are_finite(matrix.row(first) + half, format.bytes, count * blocks);
    });
  }
  thread_local std::vector<float> numbers;
  numbers.resize(static_cast<std::size_t>(matrix.inputs));
  for (std::int64_t row = first; row < first + count; ++row) {
    kernels::dequantize_blocks(format.blocks(), matrix.row(row), blocks, numbers.data());
    if (!all_finite(numbers.data(), matrix.inputs)) return false;
  }
  return true;
}

}  // namespace

FiniteLook::FiniteLook(std::vector<Matrix> matrices)
    : matrices_(std::move(matrices)), damaged_(matrices_.size()) {
  for (std::size_t i = 0; i < matrices_.size(); ++i) {
    const Matrix& matrix = matrices_[i];
    const std::int64_t rows = std::max<std::int64_t>(1, kPieceBytes / matrix.row_bytes());
    for (std::int64_t first = 0; first < matrix.outputs; first += rows) {
      pieces_.push_back({i, first, std::min(rows, matrix.outputs - first)});
    }
  }
  try {
    thread_ = std::thread([this] { look(); });
  } catch (const std::system_error&) {
    // A system that has no thread to spare: found() does all of it.
  }
}

FiniteLook::~FiniteLook() {
  next_ = pieces_.size();
  if (thread_.joinable()) thread_.join();
}

void FiniteLook::look() {
  for (std::size_t i; (i = next_.fetch_add(1)) < pieces_.size();) {
    const Piece& piece = pieces_[i];
    const Matrix& matrix = matrices_[piece.matrix];
    if (!rows_are_finite(matrix, piece.first, piece.count)) damaged_[piece.matrix] = true;
  }
}

std::vector<std::size_t> FiniteLook::found() {
  look();
  if (thread_.joinable()) thread_.join();
  std::vector<std::size_t> all;
  for (std::size_t i = 0; i < damaged_.size(); ++i) {
    if (damaged_[i]) all.push_back(i);
  }
  return all;
}

}  // namespace omnima::quant
