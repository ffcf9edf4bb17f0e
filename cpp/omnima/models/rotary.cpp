#include "omnima/models/rotary.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace omnima::models {
namespace {

double real(std::int64_t x) { return static_cast<double>(x); }

// theta^(2i / dims): how many places a pair takes for one radian.
at::Tensor places_per_radian(const DecoderConfig& c, double theta) {
  const at::Tensor exponent =
      at::arange(0, c.rotary_dims(), 2, at::kLong).to(at::kFloat) / real(c.rotary_dims());
  return at::pow(theta, exponent);
}

// NTK-aware scaling that grows with the sequence (bloc97 and emozilla 2023): a larger base.
double stretched_base(const DecoderConfig& c, std::int64_t sequence) {
  const double original = real(c.rope_original_context);
  const double length = std::max(real(sequence), original), dim = real(c.rotary_dims());
  const double stretch = c.rope_factor * length / original - (c.rope_factor - 1);
  return c.rope_theta * std::pow(stretch, dim / (dim - 2));
}

// YaRN (Peng et al. 2023), section 3.2: pairs that turn often stay, those that turn less than
// beta_slow times in the original context are stretched, with a ramp over the pairs between.
at::Tensor yarn(const DecoderConfig& c) {
  const double dim = real(c.rotary_dims());
  const auto pair_turning = [&](double turns) {
    return dim * std::log(real(c.rope_original_context) / (turns * 2 * std::numbers::pi)) /
           (2 * std::log(c.rope_theta));
  };
  const double low = std::max(std::floor(pair_turning(c.rope_beta_fast)), 0.0);
  double high = std::min(std::ceil(pair_turning(c.rope_beta_slow)), dim - 1);
  if (low == high) high += 0.001;
  const at::Tensor ramp =
      ((at::arange(c.rotary_dims() / 2, at::kFloat) - low) / (high - low)).clamp(0, 1);
  const at::Tensor places = places_per_radian(c, c.rope_theta);
  const at::Tensor kept = places.reciprocal(), stretched = (c.rope_factor * places).reciprocal();
  const at::Tensor share = 1 - ramp;
  return stretched * (1 - share) + kept * share;
}

// Llama 3.1: as YaRN, with the ramp over the number of turns.
at::Tensor llama3(const DecoderConfig& c) {
  const double original = real(c.rope_original_context);
  const at::Tensor kept = places_per_radian(c, c.rope_theta).reciprocal();
  const at::Tensor wave = 2 * std::numbers::pi / kept;
  const double longest = original / c.rope_low_freq_factor;
  const double shortest = original / c.rope_high_freq_factor;
  const at::Tensor stretched = at::where(wave > longest, kept / c.rope_factor, kept);
  const at::Tensor share = (original / wave - c.rope_low_freq_factor) /
                           (c.rope_high_freq_factor - c.rope_low_freq_factor);
  const at::Tensor between = (1 - share) * stretched / c.rope_factor + share * stretched;
  const at::Tensor is_between = (wave < shortest).logical_or(wave > longest).logical_not();
  return at::where(is_between, between, stretched);
}

// YaRN, equation 22: a softmax over more keys wants larger scores.
double attention_factor(const DecoderConfig& c) {
  if (c.rope_scaling != "yarn") return 1.0;
  if (c.rope_attention_factor > 0) return c.rope_attention_factor;
  return c.rope_factor <= 1 ? 1.0 : 0.1 * std::log(c.rope_factor) + 1.0;
}

}  // namespace

at::Tensor rotary_frequencies(const DecoderConfig& c, std::int64_t sequence) {
  if (c.rope_scaling == "yarn") return yarn(c);
  if (c.rope_scaling == "llama3") return llama3(c);
  if (c.rope_scaling == "linear") {
    return places_per_radian(c, c.rope_theta).reciprocal() / c.rope_factor;
  }
  const double base = c.rope_scaling == "dynamic" ? stretched_base(c, sequence) : c.rope_theta;
  return places_per_radian(c, base).reciprocal();
}

RotaryTables rotary_tables(const DecoderConfig& c, std::int64_t length, std::int64_t sequence) {
  if (c.positions != "rotary") return {};
  const at::Tensor angle =
      at::outer(at::arange(length, at::kFloat), rotary_frequencies(c, sequence));
  const double factor = attention_factor(c);
  at::Tensor cos = angle.cos(), sin = angle.sin();
  if (factor != 1) cos = cos * factor, sin = sin * factor;
  const std::int64_t still = c.head_dim / 2 - angle.size(1);
  if (still == 0) return {cos, sin};
  // The pairs that do not turn come last, as if at place 0.
  return {at::cat({cos, at::ones({length, still})}, 1),
          at::cat({sin, at::zeros({length, still})}, 1)};
}

RotaryTables local_rotary_tables(const DecoderConfig& c, std::int64_t length) {
  if (c.rope_local_theta == 0) return {};
  DecoderConfig local = c;
  local.rope_theta = c.rope_local_theta;
  local.rope_scaling = "none";
  return rotary_tables(local, length, 0);
}

bool rotary_follows_length(const DecoderConfig& c, std::int64_t sequence) {
  return c.rope_scaling == "dynamic" && sequence > c.rope_original_context;
}

}  // namespace omnima::models
