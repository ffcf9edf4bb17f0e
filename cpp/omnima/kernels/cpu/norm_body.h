// The body of norm_<level>.cpp: one source, compiled once for each instruction set.
#include <cmath>

#include "omnima/kernels/cpu/norm.h"
#include "omnima/kernels/cpu/vector.h"

namespace omnima::kernels::OMNIMA_LEVEL {

template <class T>
void rms_forward(const T* x, const float* weight, T* y, float* rstd, NormShape shape) {
  for (std::int64_t row = 0; row < shape.rows; ++row, x += shape.cols, y += shape.cols) {
    const float squares = sum_over_vectors(shape.cols, [&](std::int64_t i, auto part) {
      const Vector v = part.load(x + i);
      return v * v;
    });
    const float scale = 1.0f / std::sqrt(squares / static_cast<float>(shape.cols) + shape.eps);
    rstd[row] = scale;
    for_vectors(shape.cols, [&](std::int64_t i, auto part) {
      part.store(y + i, part.load(x + i) * scale * part.load(weight + i));
    });
  }
}

// With n = x * rstd: dx = rstd * (dy * w - n * mean(dy * w * n)), dw = sum over rows of dy * n.
template <class T>
void rms_backward(const T* x, const float* weight, const float* rstd, const T* dy, T* dx,
                  float* dweight, NormShape shape) {
  for (std::int64_t row = 0; row < shape.rows; ++row) {
    const float scale = rstd[row];
    const float dot = sum_over_vectors(shape.cols, [&](std::int64_t i, auto part) {
      const Vector product = part.load(dy + i) * (part.load(x + i) * scale);
      part.store(dweight + i, part.load(dweight + i) + product);
      return product * part.load(weight + i);
    });
    const float mean = dot / static_cast<float>(shape.cols);
    for_vectors(shape.cols, [&](std::int64_t i, auto part) {
      const Vector n = part.load(x + i) * scale;
      part.store(dx + i, scale * (part.load(dy + i) * part.load(weight + i) - n * mean));
    });
    x += shape.cols, dy += shape.cols, dx += shape.cols;
  }
}

template <class T>
void layer_forward(const T* x, const float* weight, const float* bias, T* y, float* mean,
                   float* rstd, NormShape shape) {
  const auto cols = static_cast<float>(shape.cols);
  for (std::int64_t row = 0; row < shape.rows; ++row, x += shape.cols, y += shape.cols) {
    const float centre =
        sum_over_vectors(shape.cols, [&](std::int64_t i, auto part) { return part.load(x + i); }) /
        cols;
    const float squares = sum_over_vectors(shape.cols, [&](std::int64_t i, auto part) {
      const Vector d = part.only(part.load(x + i) - centre);
      return d * d;
    });
    const float scale = 1.0f / std::sqrt(squares / cols + shape.eps);
    mean[row] = centre;
    rstd[row] = scale;
    for_vectors(shape.cols, [&](std::int64_t i, auto part) {
      const Vector n = (part.load(x + i) - centre) * scale;
      const Vector shift = bias == nullptr ? Vector{} : part.load(bias + i);
      part.store(y + i, n * part.load(weight + i) + shift);
    });
  }
}

// With n = (x - mean) * rstd and h = dy * w: dx = rstd * (h - mean(h) - n * mean(h * n)).
template <class T>
void layer_backward(const T* x, const float* weight, const float* mean, const float* rstd,
                    const T* dy, T* dx, float* dweight, float* dbias, NormShape shape) {
  const auto cols = static_cast<float>(shape.cols);
  for (std::int64_t row = 0; row < shape.rows; ++row) {
    const float centre = mean[row], scale = rstd[row];
    const float dot = sum_over_vectors(shape.cols, [&](std::int64_t i, auto part) {
      const Vector product = part.load(dy + i) * ((part.load(x + i) - centre) * scale);
      part.store(dweight + i, part.load(dweight + i) + product);
      return product * part.load(weight + i);
    });
    const float sum = sum_over_vectors(shape.cols, [&](std::int64_t i, auto part) {
      const Vector g = part.load(dy + i);
      if (dbias != nullptr) part.store(dbias + i, part.load(dbias + i) + g);
      return g * part.load(weight + i);
    });
    const float mean_h = sum / cols, mean_hn = dot / cols;
    for_vectors(shape.cols, [&](std::int64_t i, auto part) {
      const Vector n = (part.load(x + i) - centre) * scale;
      const Vector h = part.load(dy + i) * part.load(weight + i);
      part.store(dx + i, scale * (h - mean_h - n * mean_hn));
    });
    x += shape.cols, dy += shape.cols, dx += shape.cols;
  }
}

template <class T>
void add(const T* a, const T* b, T* sum, std::int64_t count) {
  for_vectors(count, [&](std::int64_t i, auto part) {
    part.store(sum + i, part.load(a + i) + part.load(b + i));
  });
}

template <class T>
const NormKernels<T>& norm_table() {
  static const NormKernels<T> table{rms_forward<T>, rms_backward<T>, layer_forward<T>,
                                    layer_backward<T>, add<T>};
  return table;
}
template const NormKernels<float>& norm_table<float>();
template const NormKernels<bfloat16>& norm_table<bfloat16>();

}  // namespace omnima::kernels::OMNIMA_LEVEL
