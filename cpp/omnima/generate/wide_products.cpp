#include "omnima/generate/wide_products.h"

#include <algorithm>

#include "omnima/kernels/cpu/block_gemv.h"

namespace omnima::generate {
namespace {

using kernels::MatrixView;

constexpr std::int64_t kDepthBytes = 1280;        // of a block: its rows stay in the first cache
constexpr std::int64_t kPanelsBytes = 384 << 10;  // packed weights that stay in the second cache
constexpr std::int64_t kMostPanels = 64;
constexpr std::int64_t kGatedBytes = 768 << 10;  // of sums that become a row of an mlp's middle
constexpr std::int64_t kFloats = 1 << 13;        // of weights, on their way to T
constexpr std::int64_t kLine = 64;
constexpr std::int64_t kFloat = sizeof(float);

template <class T>
constexpr std::int64_t kNumber = sizeof(T);

template <class T>
constexpr auto kStored =
    sizeof(T) == sizeof(float) ? kernels::BlockLayout::kF32 : kernels::BlockLayout::kBf16;

std::int64_t round_up(std::int64_t x, std::int64_t to) { return (x + to - 1) / to * to; }

// Panels of a piece, at most `most`: such that the busiest thread has the least of them.
std::int64_t grain_of(std::int64_t panels, std::int64_t threads, std::int64_t most) {
  std::int64_t best = 1, least = panels;
  for (std::int64_t grain = 1; grain <= most; ++grain) {
    const std::int64_t pieces = (panels + grain - 1) / grain;
    const std::int64_t busiest = std::min((pieces + threads - 1) / threads * grain, panels);
    if (busiest <= least) best = grain, least = busiest;
  }
  return best;
}

}  // namespace

// Rows lie a line further apart than they are long: so far apart as a cache's places repeat, they
// would drive each other out.
template <class T>
void WideProducts<T>::begin(std::int64_t rows, std::int64_t width) {
  count_ = rows;
  width_ = width;
  constexpr std::int64_t kMostDepth = kDepthBytes / kNumber<T>;
  const std::int64_t blocks = (width + kMostDepth - 1) / kMostDepth;
  depth_ = round_up((width + blocks - 1) / blocks, kLine);
  stride_ = round_up(width, kLine / kNumber<T>) + kLine / kNumber<T>;
  rows_of_x_ = static_cast<T*>(x_.get(static_cast<std::size_t>(rows * stride_ * kNumber<T>)));
  if (width % table_.group == 0) return;
  for (std::int64_t i = 0; i < rows; ++i) row(i)[width] = {};
}

template <class T>
void WideProducts<T>::put(std::int64_t index, const float* x) {
  table_.convert(x, width_, row(index));
}

template <class T>
std::int64_t WideProducts<T>::panels_of(std::int64_t outputs) const {
  return (outputs + table_.panel_cols - 1) / table_.panel_cols;
}

template <class T>
std::int64_t WideProducts<T>::panels_at_once() const {
  const std::int64_t fit = kPanelsBytes / table_.panel_bytes(depth_);
  return std::clamp<std::int64_t>(fit, 1, kMostPanels);
}

// Of a thread: columns in float32 and in T, and packed.
template <class T>
std::int64_t WideProducts<T>::thread_bytes() const {
  const std::int64_t columns = panels_at_once() * table_.panel_cols;
  const std::int64_t packed = panels_at_once() * table_.panel_bytes(depth_);
  return round_up(std::max(kFloats, width_) * kFloat, kLine) +
         round_up(columns * width_ * kNumber<T>, kLine) + round_up(packed, kLine) + kLine;
}

template <class T>
void WideProducts<T>::run(std::span<const Output> outputs) {
  std::int64_t panels = 0;
  for (const Output& output : outputs) panels += panels_of(output.linear->outputs);
  of_threads_.get(static_cast<std::size_t>(team_.size() * thread_bytes()));
  if (!table_.reads_rows) pack_rows();
  team_.run(panels, grain_of(panels, team_.size(), panels_at_once()),
            [&](std::int64_t begin, std::int64_t end, int thread) {
              std::int64_t start = 0;  // of this output within all panels
              for (const Output& output : outputs) {
                const std::int64_t all = output.linear->outputs, own = panels_of(all);
                const std::int64_t to = std::min(end - start, own), most = panels_at_once();
                // A team of one is given all panels at once.
                for (auto from = std::max<std::int64_t>(begin - start, 0); from < to;
                     from += most) {
                  const std::int64_t first = from * table_.panel_cols;
                  const std::int64_t last = std::min(from + most, to) * table_.panel_cols;
                  multiply({*output.linear, first, std::min(last, all) - first, output.y + first,
                            output.stride, output.add},
                           thread);
                }
                start += own;
              }
            });
}

template <class T>
void WideProducts<T>::run_gated(const Linear& gate, const Linear& up, const Gate& make,
                                WideProducts& made) {
  of_threads_.get(static_cast<std::size_t>(team_.size() * thread_bytes()));
  if (!table_.reads_rows) pack_rows();
  const std::int64_t panels = panels_of(up.outputs);
  // Both sums of all rows stay in the second cache, too.
  const std::int64_t fit = kGatedBytes / (2 * count_ * table_.panel_cols * kFloat);
  const std::int64_t grain =
      grain_of(panels, team_.size(), std::clamp<std::int64_t>(fit, 1, panels_at_once()));
  const std::int64_t width = grain * table_.panel_cols, each = 2 * count_ * width;
  auto* sums =
      static_cast<float*>(gated_.get(static_cast<std::size_t>(team_.size() * each * kFloat)));
  team_.run(panels, grain, [&](std::int64_t begin, std::int64_t end, int thread) {
    for (; begin < end; begin += grain) {  // a team of one is given all panels at once
      const std::int64_t first = begin * table_.panel_cols;
      const std::int64_t count = std::min(width, up.outputs - first);
      float* x = sums + thread * each;
      multiply({gate, first, count, x, 2 * count, false}, thread);
      multiply({up, first, count, x + count, 2 * count, false}, thread);
      for (std::int64_t row = 0; row < count_; ++row, x += 2 * count) {
        make(x, count, made.row(row) + first);
      }
    }
  });
}

// The strips of each block of depth, one block after another.
template <class T>
void WideProducts<T>::pack_rows() {
  const std::int64_t strips = (count_ + table_.strip_rows - 1) / table_.strip_rows;
  std::int64_t bytes = 0;
  for (std::int64_t k = 0; k < width_; k += depth_) {
    bytes += strips * table_.strip_bytes(std::min(depth_, width_ - k));
  }
  char* to = static_cast<char*>(packed_x_.get(static_cast<std::size_t>(bytes + kLine)));
  packed_rows_ = to;
  for (std::int64_t k = 0; k < width_; k += depth_) {
    const std::int64_t depth = std::min(depth_, width_ - k);
    table_.pack_left(MatrixView<T>{rows_of_x_ + k, stride_, 1}, count_, depth, to);
    to += strips * table_.strip_bytes(depth);
  }
}

template <class T>
kernels::GemmStrip WideProducts<T>::strip(std::int64_t row, std::int64_t depth_begin,
                                          std::int64_t depth) const {
  const std::int64_t rows = std::min(table_.strip_rows, count_ - row);
  if (table_.reads_rows) {
    const MatrixView<T> x{rows_of_x_, stride_, 1};
    return table_.strip_in_place(x.from(row, depth_begin), rows);
  }
  const std::int64_t strips = (count_ + table_.strip_rows - 1) / table_.strip_rows;
  const char* block = packed_rows_ + depth_begin / depth_ * strips * table_.strip_bytes(depth_);
  return table_.packed_strip(block + row / table_.strip_rows * table_.strip_bytes(depth), rows);
}

// The columns' weights as a right factor [inputs, columns]: where they lie if they are stored so.
template <class T>
MatrixView<T> WideProducts<T>::weights_of(const Columns& columns, char* memory) const {
  const quant::Matrix& matrix = columns.linear.weight;
  if (matrix.format->layout == kStored<T>) {
    return {reinterpret_cast<const T*>(matrix.row(columns.first)), 1, width_};
  }
  auto* floats = reinterpret_cast<float*>(memory);
  auto* made = reinterpret_cast<T*>(memory + round_up(std::max(kFloats, width_) * kFloat, kLine));
  const std::int64_t some = std::max<std::int64_t>(1, kFloats / width_);
  for (std::int64_t i = 0; i < columns.count; i += some) {
    const std::int64_t rows = std::min(some, columns.count - i);
    kernels::dequantize_blocks(matrix.format->blocks(), matrix.row(columns.first + i),
                               rows * (width_ / matrix.format->numbers), floats);
    table_.convert(floats, rows * width_, made + i * width_);
  }
  return {made, 1, width_};
}

template <class T>
void WideProducts<T>::multiply(const Columns& columns, int thread) {
  char* memory = static_cast<char*>(of_threads_.get(0)) + thread * thread_bytes();
  char* packed = memory + round_up(std::max(kFloats, width_) * kFloat, kLine) +
                 round_up(panels_at_once() * table_.panel_cols * width_ * kNumber<T>, kLine);
  const MatrixView<T> weights = weights_of(columns, memory);
  const std::int64_t stride = columns.stride;
  float* y = columns.y;
  for (std::int64_t k = 0; k < width_; k += depth_) {
    const std::int64_t depth = std::min(depth_, width_ - k);
    table_.pack_right(weights.from(k, 0), depth, columns.count, packed);
    for (std::int64_t row = 0; row < count_; row += table_.strip_rows) {
      kernels::GemmTarget<T> target;
      target.sum = y + row * stride;
      target.add = columns.add || k > 0;
      target.stride = stride;
      table_.multiply(strip(row, k, depth), packed, columns.count, depth, target);
    }
  }
  const float* bias = columns.linear.bias.data();
  if (bias == nullptr) return;
  for (std::int64_t row = 0; row < count_; ++row) {
    for (std::int64_t i = 0; i < columns.count; ++i) {
      y[row * stride + i] += bias[columns.first + i];
    }
  }
}

template class WideProducts<float>;
template class WideProducts<kernels::bfloat16>;

}  // namespace omnima::generate
