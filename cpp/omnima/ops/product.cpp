#include "omnima/ops/product.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>

#include <algorithm>

#include "omnima/core/buffer.h"
#include "omnima/kernels/cpu/gemm.h"
#include "omnima/ops/dispatch.h"
#include "omnima/ops/weight.h"

namespace omnima::ops {
namespace {

constexpr int64_t kDepthBytes = 2048;        // of a block: a strip of A stays in the first cache
constexpr int64_t kRightBytes = 4 << 20;     // packed columns of B at a time, in the last cache
constexpr int64_t kPanelsBytes = 192 << 10;  // of these, what goes through the second cache
constexpr int64_t kStripsAtOnce = 8;         // packed together: whole cache lines of A are read
constexpr int64_t kSpareBytes = 64;          // packing writes whole vectors
constexpr int64_t kRowAlias = 4096;          // rows so far apart share the places of a cache
constexpr int64_t kSerialNumbers = 1 << 19;  // of multiplications: fewer are not worth a thread

// Workspaces of a thread, kept between products.
thread_local core::Buffer right_buffer, left_buffer, sums_buffer;

template <class T>
struct Product {
  kernels::MatrixView<T> a, b;
  int64_t m, n, k;
  kernels::GemmTarget<T> target;
  const char* packed = nullptr;  // b as pack_right left it
  bool lower = false;            // only what lies on and below the diagonal is wanted
};

// One block of depth: the rows and columns of C from the packed panels of B.
template <class T>
struct Block {
  const kernels::GemmKernels<T>& kernels;
  kernels::MatrixView<T> a;
  int64_t m, depth;
  const char* panels;
  int64_t cols;
  kernels::GemmTarget<T> target;
  // Columns of C that lie left of these, where only the lower triangle is wanted; else -1.
  int64_t left_of = -1;

  bool reads_rows() const {
    return kernels.reads_rows && a.col == 1 && depth % kernels.group == 0 &&
           a.row * static_cast<int64_t>(sizeof(T)) % kRowAlias != 0;
  }
  int64_t strips() const { return (m + kernels.strip_rows - 1) / kernels.strip_rows; }

  // Strips first to last - 1 times all columns.
  void run(int64_t first, int64_t last) const {
    const int64_t rows = kernels.strip_rows, bytes = kernels.strip_bytes(depth);
    const int64_t panel_bytes = kernels.panel_bytes(depth), width = kernels.panel_cols;
    const int64_t columns = std::max<int64_t>(1, kPanelsBytes / panel_bytes) * width;
    const bool in_place = reads_rows();
    const int64_t at_once = in_place ? last - first : kStripsAtOnce;
    char* packed = in_place
                       ? nullptr
                       : static_cast<char*>(left_buffer.get(kStripsAtOnce * bytes + kSpareBytes));
    for (int64_t begin = first; begin < last; begin += at_once) {
      const int64_t end = std::min(last, begin + at_once);
      if (!in_place) {
        kernels.pack_left(a.from(begin * rows, 0), std::min(m, end * rows) - begin * rows, depth,
                          packed);
      }
      for (int64_t j = 0; j < cols; j += columns) {
        for (int64_t s = begin; s < end; ++s) {
          const int64_t count = std::min(rows, m - s * rows);
          const int64_t wanted = left_of < 0 ? cols : std::min(cols, s * rows + count - left_of);
          if (wanted <= j) continue;
          const kernels::GemmStrip strip =
              in_place ? kernels.strip_in_place(a.from(s * rows, 0), count)
                       : kernels.packed_strip(packed + (s - begin) * bytes, count);
          kernels.multiply(strip, panels + j / width * panel_bytes, std::min(columns, wanted - j),
                           depth, target.from(s * rows, j));
        }
      }
    }
  }
};

template <class F>
void for_range(int64_t count, bool serial, F f) {
  if (serial) {
    f(int64_t{0}, count);
  } else {
    at::parallel_for(0, count, 1, f);
  }
}

template <class T>
int64_t block_depth(const kernels::GemmKernels<T>& kernels) {
  return kDepthBytes / kernels.packed_bytes;
}

template <class T>
int64_t block_bytes(const kernels::GemmKernels<T>& kernels, int64_t depth, int64_t cols) {
  return (cols + kernels.panel_cols - 1) / kernels.panel_cols * kernels.panel_bytes(depth);
}

// Columns first to first + cols - 1 of b over one block of depth, on all threads.
template <class T>
void pack_columns(const kernels::GemmKernels<T>& kernels, const kernels::MatrixView<T>& b,
                  int64_t depth, int64_t cols, bool serial, char* right) {
  const int64_t width = kernels.panel_cols, panels = (cols + width - 1) / width;
  for_range(panels, serial, [&](int64_t first, int64_t last) {
    kernels.pack_right(b.from(0, first * width), depth,
                       std::min(cols, last * width) - first * width,
                       right + first * kernels.panel_bytes(depth));
  });
}

// Calls f(first, depth) for the blocks of a depth of `k`.
template <class T, class F>
void for_depths(int64_t k, F f) {
  const int64_t block = block_depth(kernels::gemm_kernels<T>());
  for (int64_t first = 0; first < k; first += block) f(first, std::min(block, k - first));
}

// A short strip of the lower triangle goes to the thread of a long one.
template <class T>
void run_strips(const Block<T>& part, bool serial) {
  const int64_t strips = part.strips();
  if (part.left_of < 0) {
    for_range(strips, serial, [&](int64_t first, int64_t last) { part.run(first, last); });
    return;
  }
  const int64_t pairs = strips / 2;
  for_range(strips - pairs, serial, [&](int64_t first, int64_t last) {
    part.run(first, last);
    part.run(std::max(strips - last, strips - pairs), strips - first);
  });
}

template <class T>
void run_blocks(const Product<T>& p, const kernels::GemmTarget<T>& target) {
  const auto& kernels = kernels::gemm_kernels<T>();
  const bool serial = p.m * p.n * p.k < kSerialNumbers;
  const char* packed = p.packed;
  for_depths<T>(p.k, [&](int64_t k, int64_t depth) {
    const int64_t panel_bytes = kernels.panel_bytes(depth);
    const int64_t columns =
        packed != nullptr ? p.n
                          : std::max<int64_t>(1, kRightBytes / panel_bytes) * kernels.panel_cols;
    for (int64_t j = 0; j < p.n; j += columns) {
      const int64_t cols = std::min(columns, p.n - j);
      const char* right = packed;
      if (packed == nullptr) {
        const int64_t bytes = block_bytes(kernels, depth, cols) + kSpareBytes;
        char* own = static_cast<char*>(right_buffer.get(bytes));
        pack_columns(kernels, p.b.from(k, j), depth, cols, serial, own);
        right = own;
      }
      auto to = target.from(0, j);
      to.add = to.add || k > 0;
      const Block<T> part{kernels, p.a.from(0, k), p.m, depth, right, cols, to, p.lower ? j : -1};
      run_strips(part, serial);
    }
    if (packed != nullptr) packed += block_bytes(kernels, depth, p.n);
  });
}

// Depth in several blocks: their sums are kept in float32 until the last.
template <class T>
void run(const Product<T>& p) {
  if (p.m == 0 || p.n == 0) return;
  if (p.target.store == nullptr || p.target.add ||
      (p.k <= block_depth(kernels::gemm_kernels<T>()) && p.k > 0)) {
    return run_blocks(p, p.target);
  }
  float* sums = static_cast<float*>(sums_buffer.get(p.m * p.n * sizeof(float)));
  kernels::GemmTarget<T> whole;
  whole.sum = sums;
  whole.stride = p.n;
  if (p.k == 0) std::fill(sums, sums + p.m * p.n, 0.0f);
  run_blocks(p, whole);
  at::parallel_for(0, p.m, row_grain(p.n), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      kernels::gemm_kernels<T>().convert(sums + row * p.n, p.n,
                                         p.target.store + row * p.target.stride);
    }
  });
}

template <class T>
kernels::MatrixView<T> view(const at::Tensor& x) {
  return {data<T>(x), x.stride(0), x.stride(1)};
}

// One stride is 1; that of a dimension of one element is anything.
bool in_order(const at::Tensor& x) {
  return x.stride(0) == 1 || x.stride(1) == 1 || x.numel() == 0;
}

at::Tensor ordered(const at::Tensor& x) { return in_order(x) ? x : x.contiguous(); }

void check(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b) {
  core::require(a.dim() == 2 && b.dim() == 2 && out.dim() == 2 && a.size(1) == b.size(0) &&
                    out.size(0) == a.size(0) && out.size(1) == b.size(1) &&
                    (out.stride(1) == 1 || out.size(1) == 1) && a.scalar_type() == b.scalar_type(),
                "product takes [m, k] and [k, n] of one type into [m, n], not ", a.sizes(), " and ",
                b.sizes(), " into ", out.sizes(), ".");
}

void store_product(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b,
                   const char* packed) {
  const at::Tensor left = ordered(a), right = ordered(b);
  by_dtype(out, "product", [&]<class T>(T*) {
    kernels::GemmTarget<T> target;
    target.store = data<T>(out);
    target.stride = out.stride(0);
    run<T>({view<T>(left), view<T>(right), a.size(0), b.size(1), a.size(1), target, packed});
  });
}

constexpr int64_t kMirrorTile = 32;

// Copies what lies below the diagonal of x [n, n] to above it.
template <class T>
void mirror(T* x, int64_t n) {
  const int64_t tiles = (n + kMirrorTile - 1) / kMirrorTile;
  const auto tile = [&](int64_t row, int64_t col) {
    for (int64_t i = row; i < std::min(n, row + kMirrorTile); ++i) {
      for (int64_t j = col; j < std::min(i, col + kMirrorTile); ++j) x[j * n + i] = x[i * n + j];
    }
  };
  at::parallel_for(0, tiles, row_grain(n * kMirrorTile), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t j = 0; j <= i; ++j) tile(i * kMirrorTile, j * kMirrorTile);
    }
  });
}

}  // namespace

void product_out(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b) {
  check(out, a, b);
  store_product(out, a, b, nullptr);
}

void product_out_packed(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b,
                        const at::Tensor& packed) {
  if (!packed.defined() || packed.numel() == 0) return product_out(out, a, b);
  check(out, a, b);
  store_product(out, a, b, static_cast<const char*>(packed.const_data_ptr()));
}

int64_t packed_size(const at::Tensor& b) {
  int64_t bytes = kSpareBytes;
  by_dtype(b, "packed_size", [&]<class T>(T*) {
    const auto& kernels = kernels::gemm_kernels<T>();
    for_depths<T>(b.size(0),
                  [&](int64_t, int64_t depth) { bytes += block_bytes(kernels, depth, b.size(1)); });
  });
  return (bytes + kSpareBytes - 1) / kSpareBytes * kSpareBytes;
}

void pack_right(const at::Tensor& packed, const at::Tensor& b) {
  core::require(packed.numel() == packed_size(b), "pack_right was given the memory of another ",
                "matrix: ", packed.numel(), " bytes for ", b.sizes(), ".");
  if (packed.numel() == 0) return;
  const at::Tensor right = ordered(b);
  by_dtype(b, "pack_right", [&]<class T>(T*) {
    const auto& kernels = kernels::gemm_kernels<T>();
    char* to = static_cast<char*>(packed.data_ptr());
    for_depths<T>(b.size(0), [&](int64_t first, int64_t depth) {
      pack_columns(kernels, view<T>(right).from(first, 0), depth, b.size(1), false, to);
      to += block_bytes(kernels, depth, b.size(1));
    });
  });
}

namespace {

void sum_product(const at::Tensor& sum, const at::Tensor& a, const at::Tensor& b, bool add) {
  check(sum, a, b);
  const at::Tensor left = ordered(a), right = ordered(b);
  by_dtype(a, "product", [&]<class T>(T*) {
    kernels::GemmTarget<T> target;
    target.sum = sum.data_ptr<float>();
    target.add = add;
    target.stride = sum.stride(0);
    run<T>({view<T>(left), view<T>(right), a.size(0), b.size(1), a.size(1), target, nullptr});
  });
}

}  // namespace

void add_product(const at::Tensor& sum, const at::Tensor& a, const at::Tensor& b) {
  sum_product(sum, a, b, true);
}

void float_product_out(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b) {
  if (a.size(1) == 0) out.zero_();
  sum_product(out, a, b, false);
}

void add_thin_product(const at::Tensor& y, const at::Tensor& a, const at::Tensor& b) {
  core::require(a.dim() == 2 && b.dim() == 2 && y.dim() == 2 && a.size(1) == b.size(0) &&
                    y.size(0) == a.size(0) && y.size(1) == b.size(1) &&
                    a.scalar_type() == b.scalar_type() && y.scalar_type() == a.scalar_type(),
                "add_thin_product takes [m, k] and [k, n] into [m, n], all of one type, not ",
                a.sizes(), " and ", b.sizes(), " into ", y.sizes(), ".");
  if (runs_plain(a) || (y.stride(1) != 1 && y.size(1) > 1)) {
    at::Tensor(y).add_(at::mm(a, b));
    return;
  }
  const at::Tensor left = ordered(a), right = ordered(b);
  by_dtype(y, "product", [&]<class T>(T*) {
    kernels::GemmTarget<T> target;
    target.store = data<T>(y);
    target.add = true;
    target.stride = y.stride(0);
    run<T>({view<T>(left), view<T>(right), a.size(0), b.size(1), a.size(1), target});
  });
}

at::Tensor symmetric_product(const at::Tensor& a, const at::Tensor& b, at::ScalarType type) {
  core::require(type == a.scalar_type() || type == at::kFloat,
                "A symmetric product is of the type of its factors or float32, not ", type, ".");
  if (runs_plain(a)) return at::mm(a, b).to(type);
  const at::Tensor out = at::empty({a.size(0), b.size(1)}, a.options().dtype(type));
  check(out, a, b);
  core::require(a.size(0) == b.size(1), "A symmetric product is square, not ", out.sizes(), ".");
  const at::Tensor left = ordered(a), right = ordered(b);
  by_dtype(a, "symmetric_product", [&]<class T>(T*) {
    kernels::GemmTarget<T> target;
    if (type == a.scalar_type()) {
      target.store = data<T>(out);
    } else {
      target.sum = out.data_ptr<float>();
    }
    target.stride = out.size(1);
    Product<T> p{view<T>(left), view<T>(right), a.size(0), b.size(1), a.size(1), target};
    p.lower = true;
    run<T>(p);
  });
  by_dtype(out, "symmetric_product", [&]<class T>(T*) { mirror(data<T>(out), out.size(1)); });
  return out;
}

at::Tensor product(const at::Tensor& a, const at::Tensor& b) {
  if (runs_plain(a)) return at::mm(a, b);
  const at::Tensor out = at::empty({a.size(0), b.size(1)}, a.options());
  product_out(out, a, b);
  return out;
}

}  // namespace omnima::ops
