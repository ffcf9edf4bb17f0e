// The body of norm_<level>.cpp: one source, compiled once for each instruction set.
#include "omnima/kernels/cpu/norm.h"
#include "omnima/kernels/cpu/vector_math.h"

namespace omnima::kernels::OMNIMA_LEVEL {

template <class T>
void rms_forward(const T* x, const float* weight, T* y, float* rstd, NormShape shape) {
  for (std::int64_t row = 0; row < shape.rows; ++row, x += shape.cols, y += shape.cols) {
    float squares = 0;
#pragma omp simd reduction(+ : squares)
    for (std::int64_t i = 0; i < shape.cols; ++i) squares += to_float(x[i]) * to_float(x[i]);
    const float scale = 1.0f / std::sqrt(squares / static_cast<float>(shape.cols) + shape.eps);
    rstd[row] = scale;
#pragma omp simd
    for (std::int64_t i = 0; i < shape.cols; ++i) {
      y[i] = from_float<T>(to_float(x[i]) * scale * weight[i]);
    }
  }
}

// With n = x * rstd: dx = rstd * (dy * w - n * mean(dy * w * n)), dw = sum over rows of dy * n.
template <class T>
void rms_backward(const T* x, const float* weight, const float* rstd, const T* dy, T* dx,
                  float* dweight, NormShape shape) {
  for (std::int64_t row = 0; row < shape.rows; ++row) {
    const float scale = rstd[row];
    float dot = 0;
#pragma omp simd reduction(+ : dot)
    for (std::int64_t i = 0; i < shape.cols; ++i) {
      const float g = to_float(dy[i]), n = to_float(x[i]) * scale;
      dweight[i] += g * n;
      dot += g * weight[i] * n;
    }
    const float mean = dot / static_cast<float>(shape.cols);
#pragma omp simd
    for (std::int64_t i = 0; i < shape.cols; ++i) {
      const float n = to_float(x[i]) * scale;
      dx[i] = from_float<T>(scale * (to_float(dy[i]) * weight[i] - n * mean));
    }
    x += shape.cols, dy += shape.cols, dx += shape.cols;
  }
}

template <class T>
void layer_forward(const T* x, const float* weight, const float* bias, T* y, float* mean,
                   float* rstd, NormShape shape) {
  const auto cols = static_cast<float>(shape.cols);
  for (std::int64_t row = 0; row < shape.rows; ++row, x += shape.cols, y += shape.cols) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t i = 0; i < shape.cols; ++i) sum += to_float(x[i]);
    const float centre = sum / cols;
    float squares = 0;
#pragma omp simd reduction(+ : squares)
    for (std::int64_t i = 0; i < shape.cols; ++i) {
      const float d = to_float(x[i]) - centre;
      squares += d * d;
    }
    const float scale = 1.0f / std::sqrt(squares / cols + shape.eps);
    mean[row] = centre;
    rstd[row] = scale;
    if (bias != nullptr) {
#pragma omp simd
      for (std::int64_t i = 0; i < shape.cols; ++i) {
        y[i] = from_float<T>((to_float(x[i]) - centre) * scale * weight[i] + bias[i]);
      }
    } else {
#pragma omp simd
      for (std::int64_t i = 0; i < shape.cols; ++i) {
        y[i] = from_float<T>((to_float(x[i]) - centre) * scale * weight[i]);
      }
    }
  }
}

// With n = (x - mean) * rstd and h = dy * w: dx = rstd * (h - mean(h) - n * mean(h * n)).
template <class T>
void layer_backward(const T* x, const float* weight, const float* mean, const float* rstd,
                    const T* dy, T* dx, float* dweight, float* dbias, NormShape shape) {
  const auto cols = static_cast<float>(shape.cols);
  for (std::int64_t row = 0; row < shape.rows; ++row) {
    const float centre = mean[row], scale = rstd[row];
    float dot = 0, sum = 0;
#pragma omp simd reduction(+ : dot, sum)
    for (std::int64_t i = 0; i < shape.cols; ++i) {
      const float g = to_float(dy[i]), n = (to_float(x[i]) - centre) * scale;
      dweight[i] += g * n;
      sum += g * weight[i];
      dot += g * weight[i] * n;
    }
    if (dbias != nullptr) {
#pragma omp simd
      for (std::int64_t i = 0; i < shape.cols; ++i) dbias[i] += to_float(dy[i]);
    }
    const float mean_h = sum / cols, mean_hn = dot / cols;
#pragma omp simd
    for (std::int64_t i = 0; i < shape.cols; ++i) {
      const float n = (to_float(x[i]) - centre) * scale;
      dx[i] = from_float<T>(scale * (to_float(dy[i]) * weight[i] - mean_h - n * mean_hn));
    }
    x += shape.cols, dy += shape.cols, dx += shape.cols;
  }
}

template <class T>
const NormKernels<T>& norm_table() {
  static const NormKernels<T> table{rms_forward<T>, rms_backward<T>, layer_forward<T>,
                                    layer_backward<T>};
  return table;
}
template const NormKernels<float>& norm_table<float>();
template const NormKernels<bfloat16>& norm_table<bfloat16>();

}  // namespace omnima::kernels::OMNIMA_LEVEL
