// The products of runner.h with adapters: what each row's adapters add to the base's products,
// whose weights all rows share.
#include <ATen/ops/from_blob.h>
#include <ATen/ops/t.h>

#include <algorithm>
#include <bit>

#include "omnima/core/scope.h"
#include "omnima/generate/runner.h"
#include "omnima/kernels/cpu/gemv.h"

namespace omnima::generate {
namespace {

constexpr std::int64_t kOutputs = 256;  // of a row, at least, for a thread

float widened(kernels::bfloat16 x) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16);
}

}  // namespace

bool Runner::scales_inputs(const Linear& linear) const {
  return std::any_of(groups_.begin(), groups_.end(), [&](const Group& group) {
    const LinearChange* change = group.change->of(linear);
    return change != nullptr && !change->inputs.empty();
  });
}

void Runner::adapted_products(std::span<const Output> outputs, const float* x, std::int64_t rows) {
  // Layers that read the same numbers read others where only some are scaled.
  const bool scales = std::any_of(outputs.begin(), outputs.end(), [&](const Output& output) {
    return scales_inputs(*output.linear);
  });
  if (scales && outputs.size() > 1) {
    for (const Output& output : outputs) adapted_products({&output, 1}, x, rows);
    return;
  }
  if (scales) x = scaled(*outputs.front().linear, x, rows);
  items_.clear();
  changed_.clear();
  for (const Output& output : outputs) items_.push_back({output, x, rows});
  std::int64_t size = 0;
  for (const Group& group : groups_) {
    for (const Output& output : outputs) {
      const LinearChange* change = group.change->of(*output.linear);
      if (change == nullptr) continue;
      changed_.push_back({&output, &group, change, size});
      for (const auto& product : change->products) size += group.count * product.down.outputs;
    }
  }
  grow(thin_, size);
  for (const auto& [output, group, change, thin] : changed_) {
    float* to = thin_.data() + thin;
    for (const auto& product : change->products) {
      const std::int64_t rank = product.down.outputs;
      items_.push_back(
          {{&product.down, to, rank}, x + group->first * product.down.inputs, group->count});
      to += group->count * rank;
    }
  }
  multiply(items_, "products");
  if (changed_.empty()) return;
  const core::Scope scope("adapters");
  add_low_rank(rows);
  for (const Changed& changed : changed_) scale_outputs(changed);
}

// A copy of x with the factors of inputs of each row.
const float* Runner::scaled(const Linear& linear, const float* x, std::int64_t rows) {
  const std::int64_t inputs = linear.inputs;
  grow(scaled_, rows * inputs);
  if (in_halves() && halves_of_ == x) {  // only rounded rows may be there
    for (std::int64_t row = 0; row < rows; ++row) {
      const kernels::bfloat16* from = halves_.row(row);
      for (std::int64_t i = 0; i < inputs; ++i) scaled_[row * inputs + i] = widened(from[i]);
    }
  } else {
    std::copy_n(x, rows * inputs, scaled_.begin());
  }
  for (const Group& group : groups_) {
    const LinearChange* change = group.change->of(linear);
    if (change == nullptr || change->inputs.empty()) continue;
    for (std::int64_t row = group.first; row < group.first + group.count; ++row) {
      for (std::int64_t i = 0; i < inputs; ++i) scaled_[row * inputs + i] *= change->inputs[i];
    }
  }
  return scaled_.data();
}

// y += scale thin B^T of all that changed_ names. All products of an output are one thread's.
void Runner::add_low_rank(std::int64_t rows) {
  if (wide_) {
    for (const Changed& changed : changed_) add_wide_low_rank(changed);
    return;
  }
  std::int64_t total = 0;
  for (const auto& [output, group, change, thin] : changed_) {
    float* at = thin_.data() + thin;
    for (const auto& product : change->products) {
      const std::int64_t count = group->count * product.down.outputs;
      for (std::int64_t i = 0; i < count; ++i) at[i] *= product.scale;
      at += count;
    }
    total += group->count * output->linear->outputs;
  }
  team_.run(total, kOutputs, [&](std::int64_t begin, std::int64_t end, int) {
    std::int64_t start = 0;  // of a row's outputs within the total
    for (const auto& [output, group, change, thin] : changed_) {
      const std::int64_t outputs = output->linear->outputs;
      for (std::int64_t i = 0; i < group->count; ++i, start += outputs) {
        if (start >= end || start + outputs <= begin) continue;
        const float* x = thin_.data() + thin;
        for (const auto& product : change->products) {
          const std::int64_t rank = product.down.outputs;
          float* y = output->y + (group->first + i) * output->stride + product.first;
          const std::int64_t from = std::max<std::int64_t>(begin - start - product.first, 0);
          const std::int64_t to = std::min(end - start - product.first, product.up.outputs);
          const auto* weight = reinterpret_cast<const float*>(product.up.weight.row(0));
          // An output is added to: its bias is what it was.
          if (from < to)
            kernels::gemv({weight, rank, y, rank, x + i * rank, rank, 1, y, 0}, from, to);
          x += group->count * rank;
        }
      }
    }
  });
}

// Of a prompt: all rows are the group's.
void Runner::add_wide_low_rank(const Changed& changed) {
  const auto& [output, group, change, thin] = changed;
  float* x = thin_.data() + thin;
  for (const auto& product : change->products) {
    const std::int64_t rank = product.down.outputs, rows = group->count;
    float* y = output->y + product.first;
    if (in_halves()) {
      for (std::int64_t i = 0; i < rows * rank; ++i) x[i] *= product.scale;
      thin_halves_.begin(rows, rank);
      for (std::int64_t row = 0; row < rows; ++row) thin_halves_.put(row, x + row * rank);
      const Output added{&product.up, y, output->stride, true};
      thin_halves_.run({&added, 1});
    } else {
      const at::Tensor up = at::from_blob(const_cast<std::uint8_t*>(product.up.weight.row(0)),
                                          {product.up.outputs, rank}, at::kFloat);
      at::from_blob(y, {rows, product.up.outputs}, {output->stride, 1}, at::kFloat)
          .addmm_(at::from_blob(x, {rows, rank}, at::kFloat), up.t(), 1, product.scale);
    }
    x += rows * rank;
  }
}

void Runner::scale_outputs(const Changed& changed) {
  const auto& [output, group, change, thin] = changed;
  if (change->factors.empty()) return;
  const float* bias = change->with_bias ? nullptr : output->linear->bias.data();
  for (std::int64_t row = group->first; row < group->first + group->count; ++row) {
    float* y = output->y + row * output->stride;
    for (std::int64_t i = 0; i < output->linear->outputs; ++i) {
      const float kept = bias == nullptr ? 0.0f : bias[i];
      y[i] = (y[i] - kept) * change->factors[static_cast<std::size_t>(i)] + kept;
    }
  }
}

}  // namespace omnima::generate
