// All parameters of a model in one flat float32 buffer, with their gradients and their 16-bit copy
// in buffers of the same layout: the optimizer, the norm and the checkpoint are each one pass.
// Matrices of a base that rests may be held in blocks instead, and are nowhere as numbers then.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "omnima/ops/weight.h"
#include "omnima/quant/matrix.h"

namespace omnima::nn {

// Parameters `first` to `first + count - 1`, which lie next to each other and act as one.
struct Slot {
  int64_t first = 0;
  int64_t count = 0;
};

struct Parameter {
  std::string name;
  std::vector<int64_t> sizes;
  double init_std = 0.0;  // normal(0, init_std); 0: filled with init_value
  double init_value = 0.0;
  int64_t offset = 0;
  const quant::Format* held = nullptr;  // in whose blocks it is held; null: as numbers

  int64_t size() const;
  bool is_matrix() const { return sizes.size() > 1; }
};

// How one pass computes: in which precision, and where gradients go.
struct Compute {
  at::ScalarType dtype = at::kFloat;
  bool direct_gradients = false;  // true: added to a gradient buffer, past Python's autograd
  int64_t worker = 0;             // which buffer: passes that run at the same time have one each
  bool packed = false;  // products read the weights as Arena::pack left them: they are unchanged
  int64_t checkpointed = 0;  // so many of the first blocks keep only their input for backward
  bool adapted = false;      // Adapters::prepare was called for the weights as they are
};

class Arena {
 public:
  // Declares a parameter; all are declared before build().
  Slot add(Parameter parameter);
  // Declares that products multiply by this matrix, or these as one.
  void add_factor(Slot slot) { factors_.push_back({slot, {}, {}}); }
  std::vector<Slot> factors() const;
  // Declares, before build(), that a matrix is held in blocks of a format, which hold() brings. It
  // does not learn.
  void hold_in(int64_t index, const quant::Format& format);
  // Lays matrices first (they decay), then vectors, keeping the order of declaration, and draws the
  // initial values from `seed`; without one they are whatever the memory holds, to be overwritten.
  void build(std::optional<std::uint64_t> seed, const at::Device& device);

  // The blocks of such a matrix: bytes on the CPU, which it shares. Throws DataError where they do
  // not fit it.
  void hold(int64_t index, const at::Tensor& blocks);
  bool holds() const;  // whether any matrix is held in blocks
  const at::Tensor& blocks(int64_t index) const { return blocks_[index]; }

  ops::Weight weight(Slot slot, const Compute& compute) const;
  const std::vector<Parameter>& parameters() const { return parameters_; }
  const at::Tensor& leaf(int64_t index) const { return leaves_[index]; }

  // The weights of a slot as one tensor, [sum of out_i, in] or [sum of out_i]: a view, or float32
  // numbers in memory of their own where blocks are among them.
  at::Tensor values(Slot slot) const;

  // Whether gradients are asked for at all. Where not, there are no buffers for them.
  void set_learning(bool learns);
  bool learns() const { return learns_; }

  int64_t size() const { return weights_.numel(); }
  int64_t numbers() const;                      // the same with those that are held in blocks
  int64_t decayed() const { return decayed_; }  // the first so many elements belong to matrices
  const at::Tensor& weights() const { return weights_; }
  const at::Tensor& gradients();  // of worker 0; zeros at first use
  // Sets the buffers of the first `workers` workers to zero, making those that are new.
  void zero_gradients(int64_t workers);
  void sum_gradients(int64_t workers);  // adds those of workers 1, 2, … to worker 0's
  // Packs the factors in a number format, for forward and, where asked, for backward; to be called
  // again whenever the weights have changed. Larger models are packed piece by piece as they are
  // multiplied: there it costs little beside the products, and copies would cost memory.
  void pack(at::ScalarType type, bool with_backward);
  bool packs() const;  // whether pack() does anything for this model
  // In a 16-bit type, refreshed when the weights were changed through tensors.
  const at::Tensor& shadow(at::ScalarType type = at::kBFloat16);
  // What no gradient is asked for from now on: one flag a parameter, or none for no parameter.
  // Parameters that act as one are frozen where all of them are.
  void freeze(std::vector<bool> frozen) { frozen_ = std::move(frozen); }

 private:
  // Initial values in `flat`, on the CPU.
  void draw(std::uint64_t seed, const at::Tensor& flat) const;
  at::Tensor view(const at::Tensor& flat, Slot slot) const;
  bool is_frozen(Slot slot) const;
  bool is_held(Slot slot) const;
  std::shared_ptr<const ops::HeldMatrix> held(Slot slot) const;
  at::Tensor stand_in(std::vector<int64_t> sizes, at::ScalarType type) const;

  struct Factor {
    Slot slot;
    at::Tensor forward, backward;  // parts of packed_
  };
  // Makes room for the factors packed in a number format, in one piece.
  void make_packed(at::ScalarType type, bool with_backward);

  std::vector<Parameter> parameters_;
  std::vector<Factor> factors_;
  at::Tensor packed_;  // bytes
  at::ScalarType packed_type_ = at::kFloat;
  bool packed_backward_ = false;
  int64_t packed_version_ = -1;  // of the weights; -1: packed anew every time
  std::vector<at::Tensor> leaves_;
  std::vector<at::Tensor> blocks_;  // by parameter; undefined: it has none
  std::vector<bool> frozen_;
  bool learns_ = true;
  at::Tensor weights_, shadow_;
  std::vector<at::Tensor> gradients_;  // one for each worker
  int64_t decayed_ = 0;
  int64_t shadow_version_ = -1;
};

}  // namespace omnima::nn
