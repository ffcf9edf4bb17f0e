// The body of updates_<level>.cpp: one source, compiled once for each instruction set.
#include "omnima/kernels/cpu/updates.h"
#include "omnima/kernels/cpu/vector_math.h"

namespace omnima::kernels::OMNIMA_LEVEL {

inline void write_shadow(const float* weight, bfloat16* shadow, std::int64_t count) {
  if (shadow == nullptr) return;
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) shadow[i] = from_float<bfloat16>(weight[i]);
}

inline void sgd(float* weight, const float* grad, float* momentum, bfloat16* shadow,
                std::int64_t count, const SgdConstants& c) {
  const float ahead = c.nesterov ? c.momentum : 1.0f, own = c.nesterov ? 1.0f : 0.0f;
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    const float g = grad[i] * c.grad_scale + c.weight_decay * weight[i];
    const float m = c.momentum * momentum[i] + g;
    momentum[i] = m;
    weight[i] -= c.lr * (ahead * m + own * g);
  }
  write_shadow(weight, shadow, count);
}

inline void lion(float* weight, const float* grad, float* exp_avg, bfloat16* shadow,
                 std::int64_t count, const LionConstants& c) {
  const float keep = 1.0f - c.lr * c.weight_decay;
  const auto rate = std::bit_cast<std::uint32_t>(c.lr);
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    const float g = grad[i] * c.grad_scale, m = exp_avg[i];
    const float u = c.beta1 * m + (1.0f - c.beta1) * g;
    // The learning rate with the sign of u, or 0: in whole numbers, so that nothing branches.
    const auto bits = std::bit_cast<std::uint32_t>(u);
    const std::uint32_t size = (bits << 1) != 0 ? rate : 0u;
    const float change = std::bit_cast<float>(size | (bits & 0x80000000u));
    weight[i] = weight[i] * keep - change;
    exp_avg[i] = c.beta2 * m + (1.0f - c.beta2) * g;
  }
  write_shadow(weight, shadow, count);
}

inline void schedule_free(float* weight, const float* grad, float* base, float* exp_avg_sq,
                          bfloat16* shadow, std::int64_t count, const ScheduleFreeConstants& c) {
  const float stride = c.lr * (c.beta1 * (1.0f - c.share) - 1.0f);
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    const float g = grad[i] * c.grad_scale, y = weight[i], z = base[i];
    const float v = c.beta2 * exp_avg_sq[i] + (1.0f - c.beta2) * g * g;
    const float u = g / (std::sqrt(v) / c.correction2 + c.eps) + c.weight_decay * y;
    exp_avg_sq[i] = v;
    weight[i] = y + c.share * (z - y) + stride * u;
    base[i] = z - c.lr * u;
  }
  write_shadow(weight, shadow, count);
}

constexpr std::int32_t kMeanBase = 889, kRootBase = 1777;  // see Moments8bit
constexpr int kMeanShift = 20, kRootShift = 19;
constexpr float kSmallestScale = 1e-30f;  // below it a block counts as zeros

inline std::uint32_t scrambled(std::uint32_t x) {
  x ^= x >> 16;
  x *= 0x85ebca6bu;
  x ^= x >> 13;
  x *= 0xc2b2ae35u;
  return x ^ (x >> 16);
}

inline float mean_of(std::uint8_t code, float scale) {
  const std::int32_t magnitude = code & 0x7f;
  const float x = std::bit_cast<float>((magnitude + kMeanBase) << kMeanShift) * scale;
  const float signed_x = (code & 0x80) != 0 ? -x : x;
  return magnitude == 0 ? 0.0f : signed_x;
}

inline float root_of(std::uint8_t code, float scale) {
  return std::bit_cast<float>((static_cast<std::int32_t>(code) + kRootBase) << kRootShift) * scale;
}

// Adding `noise` to the bits that are dropped rounds up as often as the value lies high.
inline std::int32_t rounded(float share, std::uint32_t noise, int shift, std::int32_t base) {
  const float x = share < 1.0f ? share : 1.0f;
  const auto bits = std::bit_cast<std::int32_t>(x);
  return ((bits + static_cast<std::int32_t>(noise & ((1u << shift) - 1u))) >> shift) - base;
}

// One block: weights are moved by the exact moments, which are rounded afterwards.
inline void adamw_8bit_block(float* weight, const float* grad, std::uint8_t* mean,
                             std::uint8_t* root, float& mean_scale, float& root_scale,
                             std::int32_t count, std::uint32_t place, const Adamw8bitConstants& c) {
  const float keep = 1.0f - c.lr * c.weight_decay, step_size = c.lr / c.correction1;
  float m[kBlock8bit], r[kBlock8bit];
  float most_mean = 0.0f, most_root = 0.0f;
  const float old_mean = mean_scale, old_root = root_scale;
#pragma omp simd reduction(max : most_mean, most_root)
  for (std::int32_t i = 0; i < count; ++i) {
    const float g = grad[i] * c.grad_scale, before = root_of(root[i], old_root);
    m[i] = c.beta1 * mean_of(mean[i], old_mean) + (1.0f - c.beta1) * g;
    r[i] = std::sqrt(c.beta2 * before * before + (1.0f - c.beta2) * g * g);
    weight[i] = weight[i] * keep - step_size * m[i] / (r[i] / c.correction2 + c.eps);
    const float size = std::fabs(m[i]);
    most_mean = most_mean > size ? most_mean : size;
    most_root = most_root > r[i] ? most_root : r[i];
  }
  mean_scale = most_mean > kSmallestScale ? most_mean : 0.0f;
  root_scale = most_root > kSmallestScale ? most_root : 0.0f;
  const float per_mean = mean_scale > 0.0f ? 1.0f / mean_scale : 0.0f;
  const float per_root = root_scale > 0.0f ? 1.0f / root_scale : 0.0f;
#pragma omp simd
  for (std::int32_t i = 0; i < count; ++i) {
    const std::uint32_t noise = scrambled((place + static_cast<std::uint32_t>(i)) ^ c.noise);
    const std::int32_t size = rounded(std::fabs(m[i]) * per_mean, noise, kMeanShift, kMeanBase);
    const std::int32_t high = rounded(r[i] * per_root, noise >> 13, kRootShift, kRootBase);
    const std::int32_t magnitude = size > 0 ? size : 0, sign = m[i] < 0.0f ? 0x80 : 0;
    mean[i] = static_cast<std::uint8_t>(magnitude | sign);
    root[i] = static_cast<std::uint8_t>(high > 0 ? high : 0);
  }
}

inline void adamw_8bit(float* weight, const float* grad, const Moments8bit& moments,
                       bfloat16* shadow, std::int64_t count, std::int64_t place,
                       const Adamw8bitConstants& c) {
  for (std::int64_t first = 0; first < count; first += kBlock8bit) {
    const std::int64_t block = first / kBlock8bit, left = count - first;
    adamw_8bit_block(weight + first, grad + first, moments.mean + first, moments.root + first,
                     moments.mean_scale[block], moments.root_scale[block],
                     static_cast<std::int32_t>(left < kBlock8bit ? left : kBlock8bit),
                     static_cast<std::uint32_t>(place + first), c);
  }
  write_shadow(weight, shadow, count);
}

const UpdateKernels& updates_table() {
  static const UpdateKernels table{sgd, lion, schedule_free, adamw_8bit};
  return table;
}

}  // namespace omnima::kernels::OMNIMA_LEVEL
