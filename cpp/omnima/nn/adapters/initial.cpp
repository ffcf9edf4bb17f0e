#include "omnima/nn/adapters/initial.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/linalg_svd.h>

#include <algorithm>
#include <cmath>

#include "omnima/core/error.h"
#include "omnima/core/field.h"

namespace omnima::nn {
namespace {

void check_rank(const Site& site, const std::string& init) {
  const int64_t most = std::min(site.rows, site.inputs);
  core::require<core::ConfigError>(site.rank <= most, "The rank of \"", site.name, "\" is ",
                                   site.rank, ", but ", init, " takes it from a matrix of rank ",
                                   most, ": choose a smaller one.");
}

}  // namespace

bool starts_from_base(const std::string& init) { return init == "pissa" || init == "olora"; }

void draw_low_rank(const Arena& base, const Site& site, const AdapterOptions& options,
                   std::size_t number, const at::Tensor& down, const at::Tensor& up) {
  core::check_field({"init",
                     std::string("default"),
                     "the values that an adapter begins with",
                     0,
                     0,
                     {"default", "gaussian", "pissa", "olora"}},
                    options.init);
  at::Tensor a = down, b = up;
  if (!starts_from_base(options.init)) {
    // Drawn on the CPU, so that a seed gives the same values on every device.
    auto generator = at::detail::createCPUGenerator(options.seed * 1000003ULL + number);
    at::Tensor drawn = at::empty(a.sizes(), at::kFloat);
    if (options.init == "gaussian") {
      drawn.normal_(0.0, 1.0 / static_cast<double>(site.rank), generator);
    } else {
      const double bound = 1.0 / std::sqrt(static_cast<double>(site.inputs));
      drawn.uniform_(-bound, bound, generator);
    }
    a.copy_(drawn);
    b.zero_();
    return;
  }
  check_rank(site, options.init);
  const at::Tensor weight = base.values(site.layer).narrow(0, site.first, site.rows);
  if (options.init == "pissa") {
    const auto [left, values, right] = at::linalg_svd(weight, /*full_matrices=*/false);
    const at::Tensor roots = values.narrow(0, 0, site.rank).div(site.scale).sqrt();
    a.copy_(right.narrow(0, 0, site.rank).mul(roots.unsqueeze(1)));
    b.copy_(left.narrow(1, 0, site.rank).mul(roots));
  } else {
    const auto [q, r] = at::linalg_qr(weight);
    a.copy_(r.narrow(0, 0, site.rank));
    b.copy_(q.narrow(1, 0, site.rank));
  }
}

}  // namespace omnima::nn
