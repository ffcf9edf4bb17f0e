#include "omnima/ops/norm_rows.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include "omnima/kernels/cpu/norm.h"
#include "omnima/ops/dispatch.h"
#include "omnima/ops/row_parts.h"

namespace omnima::ops {
namespace {

int64_t rows_of(const at::Tensor& x) { return x.numel() / x.size(-1); }

// Few enough rows that what one kernel writes is still in the first cache when the next reads it.
constexpr int64_t kNumbersAtOnce = 4096;

template <class F>
void few_at_once(int64_t begin, int64_t end, int64_t cols, F f) {
  const int64_t few = std::max<int64_t>(1, kNumbersAtOnce / cols);
  for (int64_t row = begin; row < end; row += few) f(row, std::min(few, end - row));
}

}  // namespace

NormRows::NormRows(const NormWeight& weight)
    : weight_(weight.weight.compute),
      bias_(weight.bias.compute),
      weight_grad_(weight.weight.grad),
      bias_grad_(weight.bias.grad),
      eps_(static_cast<float>(weight.eps)) {}

template <class T>
void NormRows::forward_rows(const T* x, T* y, int64_t first, int64_t count) const {
  const int64_t cols = weight_.numel();
  const kernels::NormShape shape{count, cols, eps_};
  const auto& kernels = kernels::norm_kernels<T>();
  const float* weight = weight_.const_data_ptr<float>();
  float* rstd = rstd_.data_ptr<float>() + first;
  x += first * cols;
  y += first * cols;
  if (is_layer_norm()) {
    kernels.layer_forward(x, weight, bias_.const_data_ptr<float>(), y,
                          mean_.data_ptr<float>() + first, rstd, shape);
  } else {
    kernels.rms_forward(x, weight, y, rstd, shape);
  }
}

at::Tensor NormRows::forward(const at::Tensor& x) {
  at::Tensor sum;
  return forward(x, {}, sum);
}

at::Tensor NormRows::forward(const at::Tensor& x, const at::Tensor& change, at::Tensor& sum) {
  const int64_t rows = rows_of(x);
  rstd_ = at::empty({rows}, x.options().dtype(at::kFloat));
  if (is_layer_norm()) mean_ = at::empty_like(rstd_);
  if (!change.defined()) {
    sum = x;
    return again(x);
  }
  const core::Scope scope("norm.forward", 0, 4 * bytes_of(x));
  const int64_t cols = weight_.numel();
  sum = at::empty_like(x);
  const at::Tensor y = at::empty_like(x);
  by_dtype(x, name(), [&]<class T>(T*) {
    at::parallel_for(0, rows, row_grain(cols), [&](int64_t begin, int64_t end) {
      few_at_once(begin, end, cols, [&](int64_t row, int64_t count) {
        const int64_t at = row * cols;
        kernels::norm_kernels<T>().add(data<T>(x) + at, data<T>(change) + at, data<T>(sum) + at,
                                       count * cols);
        forward_rows(data<T>(sum), data<T>(y), row, count);
      });
    });
  });
  return y;
}

at::Tensor NormRows::again(const at::Tensor& x) const {
  const core::Scope scope("norm.forward", 0, 2 * bytes_of(x));
  const at::Tensor y = at::empty_like(x);
  by_dtype(x, name(), [&]<class T>(T*) {
    at::parallel_for(0, rows_of(x), row_grain(weight_.numel()), [&](int64_t begin, int64_t end) {
      forward_rows(data<T>(x), data<T>(y), begin, end - begin);
    });
  });
  return y;
}

NormRows::Gradients NormRows::backward(const at::Tensor& x, const at::Tensor& dy,
                                       const at::Tensor& skip) const {
  const core::Scope scope("norm.backward", 0, (skip.defined() ? 4 : 3) * bytes_of(dy));
  const int64_t rows = rows_of(x), cols = weight_.numel(), parts = parts_of(rows);
  const at::Tensor partial = at::zeros({2, parts, cols}, weight_.options());
  const at::Tensor dx = at::empty_like(x);
  const auto backward_rows = [&]<class T>(T*, int64_t part, int64_t first, int64_t count) {
    const auto& kernels = kernels::norm_kernels<T>();
    const kernels::NormShape shape{count, cols, eps_};
    const int64_t at = first * cols;
    const float* weight = weight_.const_data_ptr<float>();
    const float* rstd = rstd_.const_data_ptr<float>() + first;
    float* dweight = partial.data_ptr<float>() + part * cols;
    if (is_layer_norm()) {
      kernels.layer_backward(data<T>(x) + at, weight, mean_.const_data_ptr<float>() + first, rstd,
                             data<T>(dy) + at, data<T>(dx) + at, dweight, dweight + parts * cols,
                             shape);
    } else {
      kernels.rms_backward(data<T>(x) + at, weight, rstd, data<T>(dy) + at, data<T>(dx) + at,
                           dweight, shape);
    }
    if (!skip.defined()) return;
    kernels.add(data<T>(dx) + at, data<T>(skip) + at, data<T>(dx) + at, count * cols);
  };
  by_dtype(x, name(), [&]<class T>(T* type) {
    in_parts(rows, [&](int64_t part, int64_t begin, int64_t end) {
      few_at_once(begin, end, cols,
                  [&](int64_t first, int64_t count) { backward_rows(type, part, first, count); });
    });
  });
  Gradients gradients{dx, {give_gradient(partial[0], weight_grad_)}};
  if (is_layer_norm()) gradients.parameters.push_back(give_gradient(partial[1], bias_grad_));
  return gradients;
}

}  // namespace omnima::ops
