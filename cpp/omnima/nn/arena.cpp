#include "omnima/nn/arena.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "omnima/core/error.h"
#include "omnima/core/huge_pages.h"
#include "omnima/nn/held_blocks.h"
#include "omnima/ops/product.h"

namespace omnima::nn {
namespace {

// In bfloat16 the packed copies of so many parameters take 128 MiB.
constexpr int64_t kLargestPacked = 32 << 20;

}  // namespace

int64_t Parameter::size() const {
  return std::accumulate(sizes.begin(), sizes.end(), int64_t{1}, std::multiplies<>());
}

Slot Arena::add(Parameter parameter) {
  core::require(!weights_.defined(), "Parameter ", parameter.name,
                " came after the arena was built.");
  parameters_.push_back(std::move(parameter));
  return {static_cast<int64_t>(parameters_.size()) - 1, 1};
}

void Arena::hold_in(int64_t index, const quant::Format& format) {
  Parameter& parameter = parameters_.at(index);
  core::require(!weights_.defined(), "Parameter ", parameter.name, " has numbers already.");
  core::require<core::ConfigError>(
      parameter.sizes.size() == 2 && parameter.sizes[1] % format.numbers == 0, "The parameter \"",
      parameter.name, "\" of the shape ", at::IntArrayRef(parameter.sizes),
      " does not lie in blocks of ", format.name, ", which hold ", format.numbers, " numbers.");
  parameter.held = &format;
}

void Arena::build(std::optional<std::uint64_t> seed, const at::Device& device) {
  int64_t offset = 0;
  for (const bool matrices : {true, false}) {
    for (auto& parameter : parameters_) {
      if (parameter.is_matrix() != matrices || parameter.held != nullptr) continue;
      parameter.offset = offset;
      offset += parameter.size();
    }
    if (matrices) decayed_ = offset;
  }
  // Drawn on the CPU, so that a seed gives the same weights on every device.
  weights_ = at::empty({offset}, at::TensorOptions(seed ? at::kCPU : device).dtype(at::kFloat));
  if (weights_.is_cpu()) core::prefer_huge_pages(weights_.mutable_data_ptr(), weights_.nbytes());
  if (seed) draw(*seed, weights_);
  weights_ = weights_.to(device);
  core::require<core::ConfigError>(!holds() || weights_.is_cpu(),
                                   "Matrices are held in blocks on the CPU, not on ",
                                   weights_.device().str(), ".");
  blocks_.resize(parameters_.size());
  for (const auto& parameter : parameters_) {
    if (parameter.held != nullptr) {
      leaves_.push_back(stand_in(parameter.sizes, at::kFloat));
      continue;
    }
    at::Tensor leaf = weights_.narrow(0, parameter.offset, parameter.size()).view(parameter.sizes);
    leaves_.push_back(leaf.detach().set_requires_grad(true));
  }
}

void Arena::draw(std::uint64_t seed, const at::Tensor& flat) const {
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const auto& parameter = parameters_[i];
    if (parameter.held != nullptr) continue;
    at::Tensor values = flat.narrow(0, parameter.offset, parameter.size());
    if (parameter.init_std > 0) {
      auto generator = at::detail::createCPUGenerator(seed * 1000003ULL + i);
      values.normal_(0.0, parameter.init_std, generator);
    } else {
      values.fill_(parameter.init_value);
    }
  }
}

void Arena::hold(int64_t index, const at::Tensor& blocks) {
  const Parameter& parameter = parameters_.at(index);
  core::require(parameter.held != nullptr, "The parameter \"", parameter.name,
                "\" is not held in blocks.");
  blocks_.at(index) =
      quant::matrix_of(*parameter.held, blocks, parameter.sizes[0], parameter.sizes[1]).blocks;
}

bool Arena::holds() const {
  return std::any_of(parameters_.begin(), parameters_.end(),
                     [](const Parameter& each) { return each.held != nullptr; });
}

int64_t Arena::numbers() const {
  return std::accumulate(parameters_.begin(), parameters_.end(), int64_t{0},
                         [](int64_t sum, const Parameter& each) { return sum + each.size(); });
}

std::vector<Slot> Arena::factors() const {
  std::vector<Slot> slots;
  for (const auto& factor : factors_) slots.push_back(factor.slot);
  return slots;
}

void Arena::set_learning(bool learns) {
  learns_ = learns;
  if (!learns) gradients_.clear();
  for (std::size_t i = 0; i < leaves_.size(); ++i) {
    leaves_[i].set_requires_grad(learns && parameters_[i].held == nullptr);
  }
}

const at::Tensor& Arena::gradients() {
  if (gradients_.empty()) zero_gradients(1);
  return gradients_[0];
}

void Arena::zero_gradients(int64_t workers) {
  for (int64_t w = 0; w < workers; ++w) {
    if (w == static_cast<int64_t>(gradients_.size())) {
      gradients_.push_back(at::zeros({size()}, weights_.options()));
    } else {
      gradients_[w].zero_();
    }
  }
}

void Arena::sum_gradients(int64_t workers) {
  for (int64_t w = 1; w < workers; ++w) gradients_[0].add_(gradients_[w]);
}

// Tensor operations on a leaf or view count up the buffer's version; our optimizer writes both
// buffers through pointers and does not.
const at::Tensor& Arena::shadow(at::ScalarType type) {
  if (!shadow_.defined() || shadow_.scalar_type() != type) {
    shadow_ = at::empty({size()}, weights_.options().dtype(type));
    shadow_version_ = -1;
  }
  if (shadow_version_ != weights_._version()) {
    shadow_.copy_(weights_);
    shadow_version_ = weights_._version();
  }
  return shadow_;
}

bool Arena::packs() const {
  return weights_.is_cpu() && numbers() <= kLargestPacked && !holds() && !ops::reference_mode();
}

void Arena::make_packed(at::ScalarType type, bool with_backward) {
  if (packed_.defined() && type == packed_type_ && packed_backward_ >= with_backward) return;
  packed_ = at::Tensor();
  packed_version_ = -1;
  packed_type_ = type;
  packed_backward_ = with_backward;
  const at::Tensor& flat = type == at::kBFloat16 ? shadow_ : weights_;
  int64_t bytes = 0;
  for (const auto& factor : factors_) {
    const at::Tensor matrix = view(flat, factor.slot);
    bytes += ops::packed_size(matrix.t()) + (with_backward ? ops::packed_size(matrix) : 0);
  }
  packed_ = at::empty({bytes}, at::kByte);
  core::prefer_huge_pages(packed_.mutable_data_ptr(), packed_.nbytes());
  int64_t used = 0;
  const auto take = [&](int64_t size) {
    return packed_.narrow(0, std::exchange(used, used + size), size);
  };
  for (auto& factor : factors_) {
    const at::Tensor matrix = view(flat, factor.slot);
    factor.forward = take(ops::packed_size(matrix.t()));
    factor.backward = with_backward ? take(ops::packed_size(matrix)) : at::Tensor();
  }
}

void Arena::pack(at::ScalarType type, bool with_backward) {
  if (!packs() || type == at::kHalf) return;
  const at::Tensor& flat = type == at::kBFloat16 ? shadow() : weights_;
  make_packed(type, with_backward);
  // Optimizers write past the version of the weights: only what rests is known to be the same.
  const auto version = static_cast<int64_t>(weights_._version());
  if (!learns_ && packed_version_ == version) return;
  packed_version_ = learns_ ? -1 : version;
  for (const auto& factor : factors_) {
    const at::Tensor matrix = view(flat, factor.slot);
    ops::pack_right(factor.forward, matrix.t());
    if (with_backward) ops::pack_right(factor.backward, matrix);
  }
}

at::Tensor Arena::view(const at::Tensor& flat, Slot slot) const {
  const auto& first = parameters_[slot.first];
  int64_t rows = 0, count = 0;
  for (int64_t i = slot.first; i < slot.first + slot.count; ++i) {
    rows += parameters_[i].sizes[0];
    count += parameters_[i].size();
  }
  auto sizes = first.sizes;
  sizes[0] = rows;
  return flat.narrow(0, first.offset, count).view(sizes);
}

bool Arena::is_frozen(Slot slot) const {
  if (frozen_.empty()) return false;
  const auto first = frozen_.begin() + slot.first;
  return std::all_of(first, first + slot.count, [](bool frozen) { return frozen; });
}

bool Arena::is_held(Slot slot) const {
  const auto first = parameters_.begin() + slot.first;
  return std::any_of(first, first + slot.count,
                     [](const Parameter& each) { return each.held != nullptr; });
}

// What is held in blocks, and beside it what is not, as one.
std::shared_ptr<const ops::HeldMatrix> Arena::held(Slot slot) const {
  std::vector<quant::Matrix> parts;
  for (int64_t i = slot.first; i < slot.first + slot.count; ++i) {
    const Parameter& parameter = parameters_[i];
    if (parameter.held == nullptr) {
      parts.push_back(quant::matrix_of(leaves_[i].detach()));
      continue;
    }
    core::require(blocks_[i].defined(), "The blocks of \"", parameter.name,
                  "\" were not given: the model cannot compute yet.");
    parts.push_back({parameter.held, blocks_[i], parameter.sizes[0], parameter.sizes[1]});
  }
  return std::make_shared<HeldBlocks>(std::move(parts));
}

at::Tensor Arena::values(Slot slot) const {
  if (!is_held(slot)) return view(weights_, slot);
  const auto matrix = held(slot);
  const at::Tensor numbers = at::empty({matrix->rows(), matrix->columns()}, at::kFloat);
  matrix->write(0, numbers);
  return numbers;
}

at::Tensor Arena::stand_in(std::vector<int64_t> sizes, at::ScalarType type) const {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  return at::full({}, nan, weights_.options().dtype(type)).expand(sizes);
}

ops::Weight Arena::weight(Slot slot, const Compute& compute) const {
  ops::Weight weight;
  if (slot.count == 0) return weight;
  if (is_held(slot)) {
    weight.held = held(slot);
    weight.compute = stand_in({weight.held->rows(), weight.held->columns()}, compute.dtype);
    for (int64_t i = slot.first; i < slot.first + slot.count; ++i) {
      weight.leaves.push_back(leaves_[i].detach());
    }
    return weight;
  }
  const bool frozen = compute.direct_gradients && is_frozen(slot);
  for (int64_t i = slot.first; i < slot.first + slot.count; ++i)
    weight.leaves.push_back(frozen ? leaves_[i].detach() : leaves_[i]);
  const bool narrow = compute.dtype != at::kFloat && parameters_[slot.first].is_matrix();
  weight.compute = view(narrow ? shadow_ : weights_, slot);
  if (compute.packed) {
    for (const auto& factor : factors_) {
      if (factor.slot.first != slot.first) continue;
      weight.packed_forward = factor.forward;
      weight.packed_backward = factor.backward;
    }
  }
  if (compute.direct_gradients && learns_) weight.grad = view(gradients_[compute.worker], slot);
  return weight;
}

}  // namespace omnima::nn
