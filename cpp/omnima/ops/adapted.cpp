#include "omnima/ops/adapted.h"

#include <algorithm>

namespace omnima::ops {

Adapted rows_of(const Adapted& adapted, int64_t first, int64_t rows) {
  const auto numbers = [](const at::Tensor& values) {
    return Weight{{values.detach()}, values.detach()};
  };
  // Calls f(first of the rows in a part, number) where a part has some of them.
  const auto within = [&](const auto& part, auto f) {
    const int64_t begin = std::max(part.first, first);
    const int64_t end = std::min(part.first + part.rows, first + rows);
    if (begin < end) f(begin - part.first, end - begin);
  };
  Adapted made;
  made.input = adapted.input;
  for (const LowRank& product : adapted.products) {
    for (const LowRank::Part& part : product.parts) {
      within(part, [&](int64_t from, int64_t count) {
        LowRank own{numbers(product.down.compute.narrow(0, part.begin, part.rank))};
        own.parts.push_back({part.first + from - first, count, 0, part.rank,
                             numbers(part.up.compute.narrow(0, from, count)), part.scale});
        if (part.inner.compute.defined()) own.parts[0].inner = numbers(part.inner.compute);
        if (part.outer.compute.defined()) {
          own.parts[0].outer = numbers(part.outer.compute.narrow(0, from, count));
        }
        made.products.push_back(std::move(own));
      });
    }
  }
  for (const OutputFactor& output : adapted.outputs) {
    within(output, [&](int64_t from, int64_t count) {
      made.outputs.push_back({output.first + from - first, count,
                              numbers(output.factor.compute.narrow(0, from, count)),
                              output.with_bias});
    });
  }
  for (const OutputBias& output : adapted.biases) {
    within(output, [&](int64_t from, int64_t count) {
      made.biases.push_back({output.first + from - first, count,
                             numbers(output.bias.compute.narrow(0, from, count))});
    });
  }
  return made;
}

}  // namespace omnima::ops
