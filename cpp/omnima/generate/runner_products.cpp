// The products of runner.h with the weights, by the form that each has. Wide ones are in
// runner_prompt.cpp.
#include <algorithm>
#include <utility>

#include "omnima/core/scope.h"
#include "omnima/generate/runner.h"
#include "omnima/kernels/cpu/block_gemv.h"
#include "omnima/kernels/cpu/half_gemv.h"

namespace omnima::generate {
namespace {

// Of those that are rounded to bfloat16: so many share lines of memory.
constexpr std::int64_t kRowsOfAThread = 16;
constexpr std::int64_t kByteRowsOfAThread = 2;

}  // namespace

// Room for rounded rows of x, which are put there before the next products of x.
void Runner::begin_halves(const float* x, std::int64_t rows, std::int64_t width) {
  halves_.begin(rows, width);
  halves_of_ = x;
}

// Rounds rows for the next products, unless they are there already.
HalfProducts& Runner::take_halves(const float* x, std::int64_t rows, std::int64_t inputs) {
  if (std::exchange(halves_of_, nullptr) == x) return x == activated_.data() ? middle_ : halves_;
  halves_.begin(rows, inputs);
  share(rows, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t row = begin; row < end; ++row) halves_.put(row, x + row * inputs);
  });
  return halves_;
}

void Runner::products(std::initializer_list<Output> outputs, const float* x, std::int64_t rows) {
  if (!groups_.empty()) return adapted_products(outputs, x, rows);
  items_.clear();
  for (const Output& output : outputs) items_.push_back({output, x, rows});
  multiply(items_, "products");
}

void Runner::multiply(std::span<const Item> items, const char* part) {
  double flops = 0, bytes = 0;
  for (const auto& [output, x, rows] : items) {
    const Linear& linear = *output.linear;
    flops += 2.0 * static_cast<double>(rows * linear.outputs * linear.inputs);
    const kernels::Compact* const copy = wide_ ? nullptr : compact(linear);
    const std::int64_t read = copy ? copy->bytes() : linear.weight.bytes();
    bytes += static_cast<double>(read + linear.bias.bytes());
    if (linear.half >= 0 && !wide_) halves_read_ += read;
  }
  const core::Scope scope(part, flops, bytes);
  if (wide_) return multiply_wide(items);
  const auto& [first, x, rows] = items.front();
  std::int64_t total = 0;
  kernels::ByteRows bytes_of_x{};
  const void* halves_of_x = nullptr;
  for (const Item& item : items) {
    const Linear& linear = *item.output.linear;
    total += linear.outputs;
    if (linear.packed && !bytes_of_x.levels) bytes_of_x = in_bytes(x, rows, linear.inputs);
    if (linear.in_halves && !halves_of_x) halves_of_x = in_half_rows(x, rows, linear.inputs);
  }
  const std::int64_t grain = total / (8 * team_.size());
  const std::int64_t least = bytes_of_x.levels ? 32 : 16;  // packed: whole pairs of tiles
  team_.run(total, std::max(grain / least * least, least),
            [&](std::int64_t begin, std::int64_t end, int) {
              std::int64_t start = 0;  // of this output within the total
              for (const auto& [output, in, count] : items) {
                const Linear& linear = *output.linear;
                const std::int64_t from = std::max<std::int64_t>(begin - start, 0);
                const std::int64_t to = std::min(end - start, linear.outputs);
                if (from < to && linear.packed) {
                  kernels::packed_gemv({linear.packed->layout, linear.bias.data(), bytes_of_x,
                                        count, output.y, output.stride},
                                       from, to);
                } else if (from < to && linear.in_halves) {
                  const auto* weight =
                      reinterpret_cast<const kernels::bfloat16*>(linear.weight.row(0));
                  kernels::half_gemv({weight, linear.bias.data(), linear.inputs, halves_of_x, count,
                                      output.y, output.stride},
                                     from, to);
                } else if (const auto* copy = compact(linear); copy && from < to) {
                  kernels::compact_gemv({*copy, linear.bias.data(), linear.inputs, in,
                                         linear.inputs, count, output.y, output.stride},
                                        from, to);
                } else if (from < to) {
                  kernels::block_gemv(
                      {linear.weight.format->blocks(), linear.weight.row(0), linear.bias.data(),
                       linear.inputs, in, linear.inputs, count, output.y, output.stride},
                      from, to);
                }
                start += linear.outputs;
              }
            });
}

const kernels::Compact* Runner::compact(const Linear& linear) const {
  if (!compact_ || linear.half < 0) return nullptr;
  const auto& copy = (*compact_)[static_cast<std::size_t>(linear.half)];
  return copy ? &copy->layout : nullptr;
}

const void* Runner::in_half_rows(const float* x, std::int64_t rows, std::int64_t inputs) {
  grow(half_rows_, kernels::half_rows_bytes(rows, inputs));
  team_.run(rows, kRowsOfAThread, [&](std::int64_t begin, std::int64_t end, int) {
    kernels::pack_half_rows(x, begin, end, inputs, half_rows_.data());
  });
  return half_rows_.data();
}

kernels::ByteRows Runner::in_bytes(const float* x, std::int64_t rows, std::int64_t inputs) {
  const std::int64_t pieces = (inputs + kernels::kPieceInputs - 1) / kernels::kPieceInputs;
  grow(byte_levels_, rows * pieces * kernels::kPieceInputs);
  grow(byte_scales_, rows * pieces);
  grow(byte_totals_, 2 * rows * pieces);
  const kernels::ByteRows out{byte_levels_.data(), byte_scales_.data(), byte_totals_.data()};
  team_.run(rows, kByteRowsOfAThread, [&](std::int64_t begin, std::int64_t end, int) {
    kernels::quantize_rows(x + begin * inputs, inputs, end - begin, inputs,
                           {out.levels + begin * pieces * kernels::kPieceInputs,
                            out.scales + begin * pieces, out.totals + 2 * begin * pieces});
  });
  return out;
}

}  // namespace omnima::generate
