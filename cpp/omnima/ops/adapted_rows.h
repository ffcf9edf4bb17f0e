// The arithmetic of adapters over rows, without autograd: for LinearRows.
#pragma once

#include <vector>

#include "omnima/ops/adapted.h"

namespace omnima::ops {

class AdaptedRows {
 public:
  explicit AdaptedRows(const Adapted& adapted);

  bool empty() const {
    return products_.empty() && outputs_.empty() && biases_.empty() && !input_.values.defined();
  }
  // Whether backward needs the layer's input.
  bool reads_input() const { return !products_.empty() || scales_input(); }
  // What the layer's product reads: x [rows, in] or g x.
  at::Tensor enter(const at::Tensor& x) const;
  // Makes of y = x' W^T [rows, out] the layer's result, with its bias (or undefined). Gives what
  // backward needs of it; undefined: nothing.
  at::Tensor finish(const at::Tensor& x, const at::Tensor& y, const at::Tensor& bias) const;

  // Backward, in the order of the calls, which is that of Adapted::leaves(). First the gradient of
  // the sum of products from that of the result; `kept` is what finish() gave.
  at::Tensor before_factors(const at::Tensor& kept, const at::Tensor& dy, const at::Tensor& bias,
                            std::vector<at::Tensor>& gradients) const;
  // Adds what flows back through the low-rank products to dx [rows, in], where it is defined. x is
  // what enter() gave.
  void through_products(const at::Tensor& x, const at::Tensor& dz, const at::Tensor& dx,
                        std::vector<at::Tensor>& gradients) const;
  // The gradient of x from that of g x, made of the layer's x.
  at::Tensor leave(const at::Tensor& x, const at::Tensor& dx,
                   std::vector<at::Tensor>& gradients) const;
  bool scales_input() const { return input_.values.defined(); }

  // Sums over rows, float32 [columns].
  struct ColumnSums {
    at::Tensor products, totals;
  };

 private:
  // A weight without its leaves, which would hold on to the graph.
  struct Factor {
    at::Tensor values, grad;
    std::vector<int64_t> sizes;
    bool frozen = true;

    Factor() = default;
    explicit Factor(const Weight& weight);
    // Appends what backward returns for the leaves; the gradient, float32, is added to the buffer
    // where there is one.
    void give(const at::Tensor& gradient, std::vector<at::Tensor>& gradients) const;
    // The same for the gradient dy^T x.
    void give_outer(const at::Tensor& dy, const at::Tensor& x,
                    std::vector<at::Tensor>& gradients) const;
  };
  struct Part {
    int64_t first, rows, begin, rank;
    double scale;
    Factor up, inner, outer;

    // What B is multiplied with, of low = x A^T [rows, ranks].
    at::Tensor enter(const at::Tensor& low) const;
  };
  struct Product {
    Factor down;
    std::vector<Part> parts;
    double dropout;
    std::uint64_t seed;
  };
  struct Output {
    int64_t first, rows;
    Factor factor;
    bool with_bias;
  };

  struct Bias {
    int64_t first, rows;
    Factor values;
  };

  // The layer's bias with those of adapters in their places; undefined: there is none.
  at::Tensor bias_for(const at::Tensor& y, const at::Tensor& bias) const;
  void add_product(const Product& product, const at::Tensor& x, const at::Tensor& y) const;
  // Of one part: adds to dlow [rows, ranks], and appends its gradients.
  void through(const Part& part, const at::Tensor& low, const at::Tensor& dz,
               const at::Tensor& dlow, std::vector<at::Tensor>& gradients) const;
  // Whether the sum of products is kept, not the result: a factor of 0 cannot be taken away.
  bool keeps_product() const;
  void scale_outputs(const at::Tensor& y, bool with_bias) const;
  at::Tensor factor_gradient(const Output& output, const ColumnSums& sums,
                             const at::Tensor& bias) const;
  void through(const Product& product, const at::Tensor& x, const at::Tensor& dz,
               const at::Tensor& dx, std::vector<at::Tensor>& gradients) const;

  std::vector<Product> products_;
  std::vector<Output> outputs_;
  std::vector<Bias> biases_;
  Factor input_;
};

}  // namespace omnima::ops
