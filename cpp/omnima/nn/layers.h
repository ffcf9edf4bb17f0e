// The layers of a decoder block. Each declares its parameters in the arena and computes in a pass.
#pragma once

#include <string>

#include "omnima/nn/pass.h"
#include "omnima/ops/activation.h"
#include "omnima/ops/adapted.h"
#include "omnima/ops/experts.h"
#include "omnima/ops/norm.h"

namespace omnima::nn {

// RMSNorm, or LayerNorm with a bias.
class Norm {
 public:
  Norm() = default;
  Norm(Arena& arena, const std::string& name, int64_t size, bool layer_norm, double eps);
  at::Tensor forward(const at::Tensor& x, const Pass& pass) const;
  ops::NormWeight weights(const Pass& pass) const;
  bool exists() const { return weight_.count > 0; }

 private:
  Slot weight_, bias_;
  double eps_ = 1e-5;
};

// The residual stream of a block: what layers read, and what the last of them adds to it. The sum
// is made where the next norm reads it.
struct Stream {
  at::Tensor x;         // [batch, time, hidden]
  at::Tensor change{};  // of the same shape, or undefined
  at::Tensor losses{};  // float32 [2]: sums of ops::Routes::losses so far; undefined: none

  // Makes the sum now, and returns it.
  const at::Tensor& settle();
};

// y = x W^T + b. Several outputs that share the input (q, k, v; gate, up) are one product.
class Linear {
 public:
  struct Output {
    std::string name;
    int64_t size;
    double init_std;
  };
  Linear() = default;
  Linear(Arena& arena, int64_t input, const std::vector<Output>& outputs, bool bias);
  at::Tensor forward(const at::Tensor& x, const Pass& pass) const;
  // Of the norm of the stream, which then holds its sum; without a norm of the stream itself.
  at::Tensor forward(Stream& stream, const Norm& norm, const Pass& pass) const;
  // Of the activation of x.
  at::Tensor forward(const at::Tensor& x, ops::Activation activation, const Pass& pass) const;
  ops::Weight weight(const Pass& pass) const { return pass.weight(weight_); }
  Slot slot() const { return weight_; }
  // What the adapters in use make of it.
  ops::Adapted adapted(const Pass& pass) const;

 private:
  // What adapters that stand behind it make of its result.
  at::Tensor followed(const at::Tensor& y, const Pass& pass) const;

  Slot weight_, bias_;
};

// Causal self-attention with grouped heads, of a norm of the stream.
class Attention {
 public:
  // Which of a pass's rotary tables turn the heads, where it has any.
  enum class Turn { kWhole, kLocal, kNone };
  struct Options {
    int64_t hidden_size;
    ops::AttentionShape shape;
    bool bias, output_bias;
    double init_std;
    double output_init_std;
    ops::AttentionOptions scores{};
    bool qk_norm = false;          // queries and keys pass an RMSNorm of their own
    bool norm_over_heads = false;  // of all heads at once
    double norm_eps = 1e-5;
    Turn turn = Turn::kWhole;
  };
  Attention() = default;
  Attention(Arena& arena, const std::string& name, const Options& options);
  // What is to be added to the stream: [batch, time, hidden].
  at::Tensor forward(Stream& stream, const Norm& norm, Pass& pass) const;

 private:
  ops::AttentionShape shape_;
  ops::AttentionOptions scores_;
  bool qk_norm_ = false;
  Turn turn_ = Turn::kWhole;
  Norm query_norm_, key_norm_;
  Linear input_, output_;
};

// The feed-forward part, of a norm of the stream, with or without a gate.
class Mlp {
 public:
  struct Options {
    int64_t hidden_size;
    int64_t intermediate_size;
    std::string activation;
    bool bias;
    double init_std;
    double output_init_std;
  };
  Mlp() = default;
  Mlp(Arena& arena, const std::string& name, const Options& options);
  at::Tensor forward(Stream& stream, const Norm& norm, const Pass& pass) const;
  // Of what was normalised already.
  at::Tensor forward(const at::Tensor& x, const Pass& pass) const;
  ops::ExpertWeights weights(const Pass& pass) const;
  bool has_adapters(const Pass& pass) const;

 private:
  ops::Activation activation_ = ops::Activation::kSwiglu;
  Linear input_, output_;
};

}  // namespace omnima::nn
