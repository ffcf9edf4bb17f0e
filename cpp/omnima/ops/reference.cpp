#include "omnima/ops/reference.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/logaddexp.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/softmax.h>

#include <cmath>
#include <limits>

#include "omnima/core/labels.h"

namespace omnima::ops::reference {

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor normal = wide * at::rsqrt(wide.square().mean(-1, true) + eps);
  return (normal * weight).to(x.scalar_type());
}

at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                      double eps) {
  return at::layer_norm(x.to(at::kFloat), {x.size(-1)}, weight, bias, eps).to(x.scalar_type());
}

at::Tensor swiglu(const at::Tensor& gate_up) {
  const int64_t width = gate_up.size(-1) / 2;
  return at::silu(gate_up.narrow(-1, 0, width)) * gate_up.narrow(-1, width, width);
}

at::Tensor gelu(const at::Tensor& x, bool by_tanh) {
  return at::gelu(x, by_tanh ? "tanh" : "none");
}

at::Tensor geglu(const at::Tensor& gate_up, bool by_tanh) {
  const int64_t width = gate_up.size(-1) / 2;
  return gelu(gate_up.narrow(-1, 0, width), by_tanh) * gate_up.narrow(-1, width, width);
}

at::Tensor relu2(const at::Tensor& x) { return at::relu(x).square(); }

at::Tensor soft_cap(const at::Tensor& x, double cap) {
  return cap == 0 ? x : (x.to(at::kFloat) / cap).tanh().mul(cap).to(x.scalar_type());
}

namespace {

// x [batch, heads, time, head_dim] turned by its positions, half-split layout.
at::Tensor turn(const at::Tensor& x, const Positions& positions) {
  if (!positions.cos.defined()) return x;
  const int64_t time = x.size(2), half = x.size(3) / 2;
  const auto rows = [&](const at::Tensor& table) {
    return positions.ids.defined() ? table.index({positions.ids}).unsqueeze(1)
                                   : table.narrow(0, 0, time);
  };
  const at::Tensor cos = rows(positions.cos), sin = rows(positions.sin);
  const at::Tensor a = x.narrow(-1, 0, half).to(at::kFloat),
                   b = x.narrow(-1, half, half).to(at::kFloat);
  return at::cat({a * cos - b * sin, b * cos + a * sin}, -1).to(x.scalar_type());
}

// Which keys lie in blocks that the queries see: bool [batch or 1, heads or 1, time, time].
at::Tensor in_seen_blocks(const at::Tensor& places, const core::BlockPattern& blocks,
                          int64_t heads) {
  const at::Tensor block = places.div(blocks.size, "floor").unsqueeze(1);  // [batch or 1, 1, time]
  const at::Tensor head = at::arange(blocks.shift == 0 ? 1 : heads, places.options());
  const at::Tensor query = block.unsqueeze(3), key = block.unsqueeze(2);
  const at::Tensor strided =
      (key + 1 + head.view({1, -1, 1, 1}) * blocks.shift).remainder(blocks.stride).eq(0);
  return (query - key).lt(blocks.local).logical_or(strided);
}

// Which keys the queries see: bool [batch or 1, heads or 1, time, time].
at::Tensor visible(const at::Tensor& qkv, const Positions& positions, int64_t heads,
                   const AttentionOptions& options) {
  const auto window = options.window;
  const at::Tensor query =
      at::arange(qkv.size(1), qkv.options().dtype(at::kLong)).unsqueeze(1);  // [time, 1]
  const at::Tensor key = query.t();
  at::Tensor mask = options.causal ? key.le(query) : key.ge(0).expand({qkv.size(1), -1});
  if (window > 0) {
    mask = mask.logical_and(key.gt(query - window));
    if (!options.causal) mask = mask.logical_and(key.lt(query + window));
  }
  mask = mask.unsqueeze(0);
  if (positions.ids.defined()) {
    const at::Tensor first = query.t() - positions.ids;  // of each token's document
    mask = mask.logical_and(first.unsqueeze(2).eq(first.unsqueeze(1)));
  }
  mask = mask.unsqueeze(1);
  if (options.blocks.size == 0) return mask;
  const at::Tensor places = positions.ids.defined() ? positions.ids : query.t();
  return mask.logical_and(in_seen_blocks(places, options.blocks, heads));
}

// What the queries take from each key, in float32 [batch, heads, time, time]; q and k are [batch,
// heads, time, head_dim].
at::Tensor explicit_weights(const at::Tensor& q, const at::Tensor& k, const at::Tensor& seen,
                            const AttentionOptions& options) {
  const double scale = options.scale_for(q.size(3));
  at::Tensor scores = soft_cap(
      at::matmul(q.to(at::kFloat), k.to(at::kFloat).transpose(2, 3)) * scale, options.softcap);
  if (options.slopes.defined()) {
    const at::Tensor place = at::arange(q.size(2), scores.options());
    scores = scores + options.slopes.view({1, -1, 1, 1}) * (place - place.unsqueeze(1));
  }
  if (options.bias.defined()) {
    const at::Tensor place = at::arange(q.size(2), seen.options().dtype(at::kLong));
    const at::Tensor distance = (place.unsqueeze(1) - place).clamp_min(0);
    scores = scores +
             options.bias.index_select(1, distance.flatten()).view({1, -1, q.size(2), q.size(2)});
  }
  at::Tensor weights = at::softmax(
      scores.masked_fill(seen.logical_not(), -std::numeric_limits<double>::infinity()), -1);
  if (options.dropout > 0) {
    const auto sizes = weights.sizes();
    weights =
        weights * dropout_factors({sizes[1], sizes[1], q.size(3)}, options, sizes[0], sizes[2])
                      .to(weights.device());
  }
  return weights;
}

struct Heads {
  at::Tensor q, k, v;  // [batch, heads, time, head_dim], turned, those of groups repeated
};

Heads heads_of(const at::Tensor& qkv, const AttentionShape& shape, const Positions& positions) {
  const int64_t batch = qkv.size(0), time = qkv.size(1);
  const auto part = [&](int64_t first, int64_t count) {
    return qkv.narrow(-1, first * shape.head_dim, count * shape.head_dim)
        .view({batch, time, count, shape.head_dim})
        .transpose(1, 2);
  };
  Heads all{turn(part(0, shape.heads), positions),
            turn(part(shape.heads, shape.kv_heads), positions),
            part(shape.heads + shape.kv_heads, shape.kv_heads)};
  if (shape.kv_heads != shape.heads) {
    all.k = all.k.repeat_interleave(shape.heads / shape.kv_heads, 1);
    all.v = all.v.repeat_interleave(shape.heads / shape.kv_heads, 1);
  }
  return all;
}

}  // namespace

at::Tensor attention_weights(const at::Tensor& qkv, const AttentionShape& shape,
                             const Positions& positions, const AttentionOptions& options) {
  const Heads all = heads_of(qkv, shape, positions);
  return explicit_weights(all.q, all.k, visible(qkv, positions, shape.heads, options), options);
}

at::Tensor attention(const at::Tensor& qkv, const AttentionShape& shape, const Positions& positions,
                     const AttentionOptions& options) {
  const auto [q, k, v] = heads_of(qkv, shape, positions);
  at::Tensor y;
  AttentionOptions but_causal = options;
  but_causal.causal = true;
  if (but_causal.plain()) {
    std::optional<at::Tensor> mask;
    if (positions.ids.defined()) mask = visible(qkv, positions, shape.heads, options);
    const bool by_order = options.causal && !mask.has_value();
    y = at::scaled_dot_product_attention(q, k, v, mask, 0.0, /*is_causal=*/by_order);
  } else {
    const at::Tensor seen = visible(qkv, positions, shape.heads, options);
    y = at::matmul(explicit_weights(q, k, seen, options), v.to(at::kFloat)).to(v.scalar_type());
  }
  return y.transpose(1, 2).reshape({qkv.size(0), qkv.size(1), shape.heads * shape.head_dim});
}

at::Tensor linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight,
                                const at::Tensor& labels, double scale, const LossTerms& terms) {
  const at::Tensor logits =
      soft_cap(at::linear(hidden, weight.to(hidden.scalar_type())), terms.softcap).to(at::kFloat);
  at::Tensor loss = at::cross_entropy_loss(logits, labels, {}, at::Reduction::Sum,
                                           core::kIgnoredLabel, terms.label_smoothing);
  if (terms.z_loss > 0) {
    const at::Tensor counted = labels.ne(core::kIgnoredLabel).to(at::kFloat);
    loss = loss + terms.z_loss * (at::logsumexp(logits, {1}).square() * counted).sum();
  }
  return loss * scale;
}

at::Tensor linear_divergence(const at::Tensor& hidden, const at::Tensor& weight,
                             const at::Tensor& teacher_hidden, const at::Tensor& teacher_weight,
                             const at::Tensor& labels, double scale, const Divergence& divergence) {
  const auto said = [&](const at::Tensor& x, const at::Tensor& head, double cap) {
    const at::Tensor logits = soft_cap(at::linear(x, head.to(x.scalar_type())), cap);
    return at::log_softmax(logits.to(at::kFloat) / divergence.temperature, 1);
  };
  const at::Tensor mine = said(hidden, weight, divergence.softcap);
  const at::Tensor theirs =
      said(teacher_hidden, teacher_weight, divergence.teacher_softcap).detach();
  const auto kl = [](const at::Tensor& a, const at::Tensor& b) {
    return (a.exp() * (a - b)).sum(1);
  };
  at::Tensor rows;
  if (divergence.kind == "middle") {
    const at::Tensor mixed = at::logaddexp(mine, theirs) - std::log(2.0);
    rows = 0.5 * (kl(theirs, mixed) + kl(mine, mixed));
  } else {
    rows = divergence.kind == "forward" ? kl(theirs, mine) : kl(mine, theirs);
  }
  return (rows * labels.ne(core::kIgnoredLabel).to(at::kFloat)).sum() * scale;
}

}  // namespace omnima::ops::reference
