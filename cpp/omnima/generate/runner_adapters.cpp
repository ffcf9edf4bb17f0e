// The products of runner.h with adapters: what each row's adapters add to the base's products,
// whose weights all rows share.
#include <ATen/ops/from_blob.h>
#include <ATen/ops/t.h>

#include <algorithm>
#include <bit>

#include "omnima/core/scope.h"
#include "omnima/generate/runner.h"
#include "omnima/kernels/cpu/activation.h"
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
  add_low_rank();
  for (const Changed& changed : changed_) {
    scale_outputs(changed);
    exchange_biases(changed);
  }
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

// y += outer ((inner thin) B^T) of all that changed_ names. All products of an output are one
// thread's.
void Runner::add_low_rank() {
  std::int64_t total = 0;
  for (const auto& [output, group, change, thin] : changed_) {
    float* at = thin_.data() + thin;
    for (const auto& product : change->products) {
      for (std::int64_t row = 0; row < group->count; ++row) {
        for (const float factor : product.inner) *at++ *= factor;
      }
    }
    total += group->count * output->linear->outputs;
  }
  grow(added_, total);
  if (wide_) {
    for (const Changed& changed : changed_) add_wide_low_rank(changed);
    return;
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
          const auto multiply = [&](const float* bias, float* into) {
            kernels::gemv({weight, rank, bias, rank, x + i * rank, rank, 1, into, 0}, from, to);
          };
          if (from < to && product.outer.empty()) {
            multiply(y, y);  // an output is added to: its bias is what it was
          } else if (from < to) {
            float* made = added_.data() + start + product.first;
            multiply(nullptr, made);
            for (std::int64_t o = from; o < to; ++o) y[o] += product.outer[o] * made[o];
          }
          x += group->count * rank;
        }
      }
    }
  });
}

// Of prompts.
void Runner::add_wide_low_rank(const Changed& changed) {
  const auto& [output, group, change, thin] = changed;
  float* x = thin_.data() + thin;
  for (const auto& product : change->products) {
    const std::int64_t rank = product.down.outputs, rows = group->count;
    const std::int64_t outputs = product.up.outputs;
    const bool apart = !product.outer.empty();  // what is added gets factors first
    float* y = output->y + group->first * output->stride + product.first;
    const Output to{&product.up, apart ? added_.data() : y, apart ? outputs : output->stride,
                    !apart};
    const auto add = [&](auto& products) {
      products.begin(rows, rank);
      for (std::int64_t row = 0; row < rows; ++row) products.put(row, x + row * rank);
      products.run({&to, 1});
    };
    if (in_halves()) {
      add(thin_halves_);
    } else {
      add(thin_floats_);
    }
    x += rows * rank;
    for (std::int64_t row = 0; apart && row < rows; ++row) {
      for (std::int64_t o = 0; o < outputs; ++o) {
        y[row * output->stride + o] += product.outer[o] * added_[row * outputs + o];
      }
    }
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

void Runner::exchange_biases(const Changed& changed) {
  const auto& [output, group, change, thin] = changed;
  const float* bias = output->linear->bias.data();
  for (const auto& [first, values] : change->biases) {
    for (std::int64_t row = group->first; row < group->first + group->count; ++row) {
      float* y = output->y + row * output->stride + first;
      for (std::size_t i = 0; i < values.size(); ++i) {
        y[i] += bias == nullptr ? values[i] : values[i] - bias[first + i];
      }
    }
  }
}

void Runner::pass_bottlenecks(const Linear& layer, float* y) {
  const std::int64_t outputs = layer.outputs;
  for (const Group& group : groups_) {
    const LinearChange* change = group.change->of(layer);
    if (change == nullptr || !change->behind) continue;
    const auto& [down, up] = *change->behind;
    float* own = y + group.first * outputs;
    grow(narrow_, group.count * down.outputs);
    grow(added_, group.count * outputs);
    const Item narrowed{{&down, narrow_.data(), down.outputs}, own, group.count};
    multiply({&narrowed, 1}, "products");
    kernels::activation_kernels<float>().gelu_forward(narrow_.data(), narrow_.data(),
                                                      group.count * down.outputs, false);
    const Item widened{{&up, added_.data(), outputs}, narrow_.data(), group.count};
    multiply({&widened, 1}, "products");
    for (std::int64_t i = 0; i < group.count * outputs; ++i) own[i] += added_[i];
  }
}

}  // namespace omnima::generate
