#include "omnima/kernels/cpu/norm.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include "omnima/ops/device_ops.h"
#include "omnima/ops/dispatch.h"
#include "omnima/ops/norm.h"
#include "omnima/ops/reference.h"

namespace omnima::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

kernels::NormShape shape_of(const at::Tensor& x, double eps) {
  return {x.numel() / x.size(-1), x.size(-1), static_cast<float>(eps)};
}

void check_rows(const at::Tensor& x, const Weight& weight, const char* op) {
  const int64_t cols = weight.compute.numel();
  core::require(x.dim() > 0 && cols > 0 && x.size(-1) == cols, op, " has a weight for rows of ",
                cols, " elements, but its input has the shape ", x.sizes(), ".");
}

// Adds a [parts, cols] buffer of partial sums to the gradient: in order, so that sums are
// repeatable.
at::Tensor give_gradient(const at::Tensor& partial, const at::Tensor& grad) {
  const at::Tensor sum = partial.sum(0);
  if (!grad.defined()) return sum;
  grad.add_(sum);
  return {};
}

// Ranges of rows with a buffer of their own for the weight's gradient. Their number follows from
// the rows alone: the same sums on any number of threads.
int64_t parts_of(int64_t rows) { return std::clamp<int64_t>(rows / 256, 1, 64); }

template <class F>
void in_parts(int64_t rows, F f) {
  const int64_t parts = parts_of(rows), share = (rows + parts - 1) / parts;
  at::parallel_for(0, parts, 1, [&](int64_t first, int64_t last) {
    for (int64_t part = first; part < last; ++part) {
      const int64_t begin = part * share, end = std::min(rows, begin + share);
      if (begin < end) f(part, begin, end);
    }
  });
}

struct RmsNormFunction : torch::autograd::Function<RmsNormFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input,
                            const at::Tensor& leaf, const Weight& weight, double eps) {
    const core::Scope scope("norm.forward", 0, 2 * bytes_of(input));
    const at::Tensor x = input.contiguous();
    const auto shape = shape_of(x, eps);
    const at::Tensor rstd = at::empty({shape.rows}, x.options().dtype(at::kFloat));
    const at::Tensor y = at::empty_like(x);
    by_dtype(x, "rms_norm", [&]<class T>(T*) {
      at::parallel_for(0, shape.rows, row_grain(shape.cols), [&](int64_t begin, int64_t end) {
        kernels::norm_kernels<T>().rms_forward(
            data<T>(x) + begin * shape.cols, weight.compute.const_data_ptr<float>(),
            data<T>(y) + begin * shape.cols, rstd.data_ptr<float>() + begin,
            {end - begin, shape.cols, shape.eps});
      });
    });
    context->save_for_backward({x});
    context->saved_data["rstd"] = rstd;
    context->saved_data["weight"] = weight.compute;
    context->saved_data["grad"] = weight.grad;
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const core::Scope scope("norm.backward", 0, 3 * bytes_of(grads[0]));
    const at::Tensor x = context->get_saved_variables()[0];
    const at::Tensor dy = grads[0].contiguous();
    const at::Tensor rstd = context->saved_data["rstd"].toTensor();
    const at::Tensor weight = context->saved_data["weight"].toTensor();
    const auto shape = shape_of(x, 0);
    const int64_t parts = parts_of(shape.rows);
    const at::Tensor partial = at::zeros({parts, shape.cols}, weight.options());
    const at::Tensor dx = at::empty_like(x);
    by_dtype(x, "rms_norm", [&]<class T>(T*) {
      in_parts(shape.rows, [&](int64_t part, int64_t begin, int64_t end) {
        const int64_t at = begin * shape.cols;
        kernels::norm_kernels<T>().rms_backward(
            data<T>(x) + at, weight.const_data_ptr<float>(), rstd.data_ptr<float>() + begin,
            data<T>(dy) + at, data<T>(dx) + at, partial.data_ptr<float>() + part * shape.cols,
            {end - begin, shape.cols, shape.eps});
      });
    });
    const at::Tensor dweight = give_gradient(partial, context->saved_data["grad"].toTensor());
    return {dx, dweight, at::Tensor(), at::Tensor()};
  }
};

struct LayerNormFunction : torch::autograd::Function<LayerNormFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input,
                            const at::Tensor& leaf, const at::Tensor& bias_leaf,
                            const Weight& weight, const Weight& bias, double eps) {
    const core::Scope scope("norm.forward", 0, 2 * bytes_of(input));
    const at::Tensor x = input.contiguous();
    const auto shape = shape_of(x, eps);
    const at::Tensor mean = at::empty({shape.rows}, x.options().dtype(at::kFloat));
    const at::Tensor rstd = at::empty_like(mean);
    const at::Tensor y = at::empty_like(x);
    by_dtype(x, "layer_norm", [&]<class T>(T*) {
      at::parallel_for(0, shape.rows, row_grain(shape.cols), [&](int64_t begin, int64_t end) {
        kernels::norm_kernels<T>().layer_forward(
            data<T>(x) + begin * shape.cols, weight.compute.const_data_ptr<float>(),
            bias.compute.const_data_ptr<float>(), data<T>(y) + begin * shape.cols,
            mean.data_ptr<float>() + begin, rstd.data_ptr<float>() + begin,
            {end - begin, shape.cols, shape.eps});
      });
    });
    context->save_for_backward({x});
    context->saved_data["mean"] = mean;
    context->saved_data["rstd"] = rstd;
    context->saved_data["weight"] = weight.compute;
    context->saved_data["grad"] = weight.grad;
    context->saved_data["bias_grad"] = bias.grad;
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const core::Scope scope("norm.backward", 0, 3 * bytes_of(grads[0]));
    const at::Tensor x = context->get_saved_variables()[0];
    const at::Tensor dy = grads[0].contiguous();
    const at::Tensor mean = context->saved_data["mean"].toTensor();
    const at::Tensor rstd = context->saved_data["rstd"].toTensor();
    const at::Tensor weight = context->saved_data["weight"].toTensor();
    const auto shape = shape_of(x, 0);
    const int64_t parts = parts_of(shape.rows);
    const at::Tensor partial = at::zeros({2, parts, shape.cols}, weight.options());
    const at::Tensor dx = at::empty_like(x);
    by_dtype(x, "layer_norm", [&]<class T>(T*) {
      in_parts(shape.rows, [&](int64_t part, int64_t begin, int64_t end) {
        const int64_t at = begin * shape.cols;
        float* dweight = partial.data_ptr<float>() + part * shape.cols;
        kernels::norm_kernels<T>().layer_backward(
            data<T>(x) + at, weight.const_data_ptr<float>(), mean.data_ptr<float>() + begin,
            rstd.data_ptr<float>() + begin, data<T>(dy) + at, data<T>(dx) + at, dweight,
            dweight + parts * shape.cols, {end - begin, shape.cols, shape.eps});
      });
    });
    auto& saved = context->saved_data;
    return {dx,
            give_gradient(partial[0], saved["grad"].toTensor()),
            give_gradient(partial[1], saved["bias_grad"].toTensor()),
            at::Tensor(),
            at::Tensor(),
            at::Tensor()};
  }
};

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const Weight& weight, double eps) {
  check_rows(x, weight, "rms_norm");
  if (const auto* device = device_ops(x)) return device->rms_norm(x, weight, eps);
  if (!x.is_cpu() || reference_mode()) return reference::rms_norm(x, plain_leaf(weight), eps);
  return RmsNormFunction::apply(x, weight.leaves[0], weight, eps);
}

at::Tensor layer_norm(const at::Tensor& x, const Weight& weight, const Weight& bias, double eps) {
  check_rows(x, weight, "layer_norm");
  check_rows(x, bias, "layer_norm");
  if (const auto* device = device_ops(x)) return device->layer_norm(x, weight, bias, eps);
  if (!x.is_cpu() || reference_mode()) {
    return reference::layer_norm(x, plain_leaf(weight), plain_leaf(bias), eps);
  }
  return LayerNormFunction::apply(x, weight.leaves[0], bias.leaves[0], weight, bias, eps);
}

}  // namespace omnima::ops
