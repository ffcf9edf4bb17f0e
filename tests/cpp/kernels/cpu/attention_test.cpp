// Attention at every instruction-set level, in both number formats, against a plain loop in double.
#include "omnima/kernels/cpu/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <tuple>
#include <vector>

namespace omnima::kernels {
namespace {

constexpr std::int64_t kKvHeads = 2, kKvHead = 1;  // the task reads the second of two heads
constexpr float kUntouched = -77.0f;
constexpr std::initializer_list<Level> kLevelsOfAttention{
    Level::kGeneric, Level::kAvx2, Level::kAvx512, Level::kAvx512Bf16, Level::kAmx};

double wide(float x) { return x; }
double wide(bfloat16 x) { return std::bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16); }

template <class T>
T narrow(float x);
template <>
float narrow<float>(float x) {
  return x;
}
template <>
bfloat16 narrow<bfloat16>(float x) {  // to the nearest; no test draws halfway cases on purpose
  return {static_cast<std::uint16_t>((std::bit_cast<std::uint32_t>(x) + 0x8000u) >> 16)};
}

struct Shape {
  std::int64_t time, head_dim, group;
  bool packed, rotary;
  core::BlockPattern blocks{};

  std::int64_t heads() const { return group * kKvHeads; }
  std::int64_t stride() const { return (heads() + 2 * kKvHeads) * head_dim; }
  std::int64_t out_stride() const { return heads() * head_dim; }
  std::int64_t q() const { return kKvHead * group * head_dim; }  // offsets inside a token
  std::int64_t k() const { return (heads() + kKvHead) * head_dim; }
  std::int64_t v() const { return (heads() + kKvHeads + kKvHead) * head_dim; }
};

template <class T>
std::vector<T> draw(std::int64_t count, unsigned seed, float scale) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<T> values(count);
  for (T& value : values) value = narrow<T>(normal(engine));
  return values;
}

// Documents of 1, 2, 3, … tokens, and from the 40th token on one that spans tiles.
std::vector<std::int64_t> document_places(std::int64_t time) {
  std::vector<std::int64_t> places(time);
  std::int64_t start = 0, length = 1;
  for (std::int64_t i = 0; i < time; ++i) {
    if (i - start == length && (i <= 40 || i == 100)) start = i, ++length;
    if (i == 100) start = i;
    places[i] = i - start;
  }
  return places;
}

template <class T>
struct Inputs {
  explicit Inputs(const Shape& s)
      : shape(s),
        qkv(draw<T>(s.time * s.stride(), 1, 1.5f)),
        dout(draw<T>(s.time * s.out_stride(), 2, 1.0f)),
        places(s.packed ? document_places(s.time) : std::vector<std::int64_t>()) {
    for (std::int64_t i = 0; i < s.time * (s.head_dim / 2); ++i) {
      const double angle = static_cast<double>(i / (s.head_dim / 2)) *
                           std::pow(100.0, -static_cast<double>(i % (s.head_dim / 2)) / 8);
      cos.push_back(static_cast<float>(std::cos(angle)));
      sin.push_back(static_cast<float>(std::sin(angle)));
    }
  }

  std::int64_t place(std::int64_t token) const { return places.empty() ? token : places[token]; }
  double scale() const { return 1.0 / std::sqrt(static_cast<double>(shape.head_dim)); }

  Shape shape;
  std::vector<T> qkv, dout;
  std::vector<std::int64_t> places;
  std::vector<float> cos, sin;
};

// A head's vector of one token, turned by its position; sign -1 turns back.
template <class T>
std::vector<double> turned(const Inputs<T>& in, std::vector<double> x, std::int64_t token,
                           double sign) {
  const std::int64_t half = in.shape.head_dim / 2;
  if (!in.shape.rotary) return x;
  for (std::int64_t i = 0; i < half; ++i) {
    const double c = in.cos[in.place(token) * half + i];
    const double s = sign * in.sin[in.place(token) * half + i];
    const double a = x[i], b = x[half + i];
    x[i] = a * c - b * s;
    x[half + i] = b * c + a * s;
  }
  return x;
}

template <class T>
std::vector<double> slice(const std::vector<T>& from, std::int64_t at, std::int64_t count) {
  std::vector<double> values;
  for (std::int64_t i = at; i < at + count; ++i) values.push_back(wide(from[i]));
  return values;
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

void add(std::vector<double>& to, double factor, const std::vector<double>& x) {
  for (std::size_t i = 0; i < x.size(); ++i) to[i] += factor * x[i];
}

// What the task writes, laid out as the task lays it out, other heads left at kUntouched.
struct Plain {
  std::vector<double> out, logsumexp, dqkv;
};

template <class T>
Plain plain_attention(const Inputs<T>& in) {
  const Shape& s = in.shape;
  const std::int64_t dim = s.head_dim;
  Plain plain{std::vector<double>(s.time * s.out_stride(), kUntouched),
              std::vector<double>(s.group * s.time),
              std::vector<double>(s.time * s.stride(), kUntouched)};
  using Rows = std::vector<std::vector<double>>;
  Rows k(s.time), v(s.time), dk(s.time, std::vector<double>(dim)), dv = dk;
  for (std::int64_t j = 0; j < s.time; ++j) {
    k[j] = turned(in, slice(in.qkv, j * s.stride() + s.k(), dim), j, 1);
    v[j] = slice(in.qkv, j * s.stride() + s.v(), dim);
  }
  const auto write = [&](std::vector<double>& to, std::int64_t at, const std::vector<double>& x) {
    std::copy(x.begin(), x.end(), to.begin() + at);
  };
  for (std::int64_t head = 0; head < s.group; ++head) {
    for (std::int64_t i = 0; i < s.time; ++i) {
      const std::int64_t at = i * s.out_stride() + s.q() + head * dim, first = i - in.place(i);
      const auto q = turned(in, slice(in.qkv, i * s.stride() + s.q() + head * dim, dim), i, 1);
      const auto dout = slice(in.dout, at, dim);
      std::vector<double> p(i + 1), out(dim), dq(dim);
      double sum = 0, centre = 0;
      const auto seen = [&](std::int64_t j) {
        const std::int64_t size = s.blocks.size;
        return size == 0 ||
               s.blocks.sees(kKvHead * s.group + head, in.place(i) / size, in.place(j) / size);
      };
      for (std::int64_t j = first; j <= i; ++j) {
        sum += p[j] = seen(j) ? std::exp(in.scale() * dot(q, k[j])) : 0;
      }
      for (std::int64_t j = first; j <= i; ++j) {
        p[j] /= sum;
        add(out, p[j], v[j]);
        centre += p[j] * dot(dout, v[j]);
      }
      for (std::int64_t j = first; j <= i; ++j) {
        const double dscore = in.scale() * p[j] * (dot(dout, v[j]) - centre);
        add(dv[j], p[j], dout);
        add(dq, dscore, k[j]);
        add(dk[j], dscore, q);
      }
      write(plain.out, at, out);
      plain.logsumexp[head * s.time + i] = std::log(sum);
      write(plain.dqkv, i * s.stride() + s.q() + head * dim, turned(in, dq, i, -1));
    }
  }
  for (std::int64_t j = 0; j < s.time; ++j) {
    write(plain.dqkv, j * s.stride() + s.k(), turned(in, dk[j], j, -1));
    write(plain.dqkv, j * s.stride() + s.v(), dv[j]);
  }
  return plain;
}

// The largest difference, as a share of the largest value (or of 1).
template <class A>
double distance(const std::vector<A>& actual, const std::vector<double>& expected) {
  double most = 0, size = 1;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double difference = std::abs(wide(actual[i]) - expected[i]);
    if (std::isnan(difference)) return difference;
    most = std::max(most, difference);
    if (expected[i] != kUntouched) size = std::max(size, std::abs(expected[i]));
  }
  return most / size;
}

template <class T>
void check_level(const Inputs<T>& in, const Plain& plain, Level level, double tolerance) {
  const Shape& s = in.shape;
  std::vector<T> out(s.time * s.out_stride(), narrow<T>(kUntouched));
  std::vector<T> dqkv(s.time * s.stride(), narrow<T>(kUntouched));
  std::vector<float> logsumexp(s.group * s.time);
  // Scratch memory comes as it is, so nothing may depend on what it held; and it ends where it
  // ends.
  const auto& kernels = attention_kernels<T>(level);
  const std::int64_t floats = kernels.scratch_bytes(s.time, s.head_dim) / 4;
  std::vector<float> scratch(floats + 16, std::numeric_limits<float>::quiet_NaN());
  std::fill(scratch.begin() + floats, scratch.end(), kUntouched);
  AttentionTask<T> task{s.time,
                        s.head_dim,
                        s.group,
                        s.stride(),
                        s.out_stride(),
                        in.qkv.data() + s.q(),
                        in.qkv.data() + s.k(),
                        in.qkv.data() + s.v(),
                        out.data() + s.q(),
                        logsumexp.data(),
                        s.packed ? in.places.data() : nullptr,
                        s.rotary ? in.cos.data() : nullptr,
                        s.rotary ? in.sin.data() : nullptr,
                        static_cast<float>(in.scale())};
  task.blocks = s.blocks;
  task.first_head = kKvHead * s.group;
  kernels.forward(task, scratch.data());
  EXPECT_LE(distance(out, plain.out), tolerance);
  // Stretches of queries give the same bits, and leave the others alone. With a pattern of blocks a
  // tile's sums follow what its queries see together: there tiles must be the same ones.
  for (const std::int64_t first : {std::int64_t{1}, kernels.query_tile, kernels.query_tile + 5,
                                   4 * kernels.query_tile - 1, s.time - 1}) {
    if (first < 0 || first >= s.time) continue;
    const bool same_tiles = s.blocks.size == 0 || first % kernels.query_tile == 0;
    std::vector<T> part(out.size(), narrow<T>(kUntouched));
    std::vector<float> sums(logsumexp.size(), kUntouched);
    task.first_query = first;
    task.out = part.data() + s.q();
    task.logsumexp = sums.data();
    kernels.forward(task, scratch.data());
    const std::int64_t at = first * s.out_stride();
    const std::int64_t end = same_tiles ? static_cast<std::int64_t>(out.size()) : at;
    for (std::int64_t i = 0; i < end; ++i) {
      ASSERT_EQ(wide(part[i]), i < at ? wide(narrow<T>(kUntouched)) : wide(out[i])) << first;
    }
    for (std::int64_t i = 0; i < (same_tiles ? s.time : first); ++i) {
      ASSERT_EQ(sums[i], i < first ? kUntouched : logsumexp[i]) << first;
    }
    std::copy(out.begin(), out.begin() + at, part.begin());
    EXPECT_LE(distance(part, plain.out), tolerance);
  }
  task.first_query = 0;
  task.out = out.data() + s.q();
  task.logsumexp = logsumexp.data();
  // Queries and keys are rounded once more when their positions have turned them.
  EXPECT_LE(distance(logsumexp, plain.logsumexp), sizeof(T) == 2 ? 5e-3 : 1e-5);
  std::fill(scratch.begin(), scratch.begin() + floats, std::numeric_limits<float>::quiet_NaN());
  kernels.backward(
      task, {in.dout.data() + s.q(), dqkv.data() + s.q(), dqkv.data() + s.k(), dqkv.data() + s.v()},
      scratch.data());
  EXPECT_LE(distance(dqkv, plain.dqkv), tolerance);
  for (std::int64_t i = floats; i < floats + 16; ++i) EXPECT_EQ(scratch[i], kUntouched);
}

template <class T>
void check_shape(const Shape& shape, double tolerance) {
  const Inputs<T> in(shape);
  const Plain plain = plain_attention(in);
  for (const Level level : kLevelsOfAttention) {
    if (level > detected_level()) continue;
    SCOPED_TRACE(level_name(level));
    check_level(in, plain, level, tolerance);
  }
}

class AttentionKernel
    : public ::testing::TestWithParam<std::tuple<std::int64_t, std::int64_t, std::int64_t>> {
 protected:
  template <class T>
  void check_all(double tolerance) {
    const auto& [time, head_dim, group] = GetParam();
    for (const bool packed : {false, true}) {
      for (const bool rotary : {false, true}) {
        if (rotary && head_dim % 2 != 0) continue;  // a rotary turn takes pairs
        SCOPED_TRACE(std::string(packed ? "packed " : "") + (rotary ? "rotary" : ""));
        check_shape<T>({time, head_dim, group, packed, rotary}, tolerance);
      }
    }
  }
};

TEST_P(AttentionKernel, Float32EqualsThePlainLoop) { check_all<float>(1e-5); }
// Results are rounded to 8 bits of precision, and backward starts from the rounded output.
TEST_P(AttentionKernel, Bfloat16EqualsThePlainLoop) { check_all<bfloat16>(1.5e-2); }

INSTANTIATE_TEST_SUITE_P(OddSizes, AttentionKernel,
                         ::testing::Combine(::testing::Values(1, 2, 47, 48, 97, 130, 541),
                                            ::testing::Values(7, 20, 24, 64),
                                            ::testing::Values(1, 3)));

class AttentionKernelBlocks : public ::testing::TestWithParam<core::BlockPattern> {};

TEST_P(AttentionKernelBlocks, EqualThePlainLoopAtEveryLevel) {
  for (const bool packed : {false, true}) {
    for (const std::int64_t time : {1, 97, 541}) {
      SCOPED_TRACE(::testing::Message() << time << packed);
      check_shape<float>({time, 20, 2, packed, true, GetParam()}, 1e-5);
      check_shape<bfloat16>({time, 24, 3, packed, false, GetParam()}, 1.5e-2);
    }
  }
}

// A tile's queries may see no key of the first part they meet: nothing of that may stay.
class AttentionKernelMaskedRows : public ::testing::TestWithParam<std::int64_t> {};

TEST_P(AttentionKernelMaskedRows, LeaveNothing) {
  for (const core::BlockPattern& blocks : {core::BlockPattern{}, core::BlockPattern{64, 4, 8, 1}}) {
    check_shape<float>({541, GetParam(), 1, true, false, blocks}, 1e-5);
    check_shape<float>({541, GetParam(), 1, false, false, blocks}, 1e-5);
  }
}

INSTANTIATE_TEST_SUITE_P(HeadWidths, AttentionKernelMaskedRows,
                         ::testing::Values(50, 65, 89, 200, 230, 242));

INSTANTIATE_TEST_SUITE_P(OddSizes, AttentionKernelBlocks,
                         ::testing::Values(core::BlockPattern{1, 1, 2, 1},
                                           core::BlockPattern{5, 3, 7, 2},
                                           core::BlockPattern{32, 1, 4},
                                           core::BlockPattern{64, 2, 3, 1},
                                           core::BlockPattern{270, 1, 2, 1}));

// A document of its own gives the same numbers as the same tokens packed behind another.
TEST(AttentionKernelPacking, ADocumentDoesNotSeeItsNeighbour) {
  const Shape shape{70, 20, 2, true, true};
  Inputs<float> in(shape);
  for (std::int64_t i = 0; i < shape.time; ++i) in.places[i] = i < 30 ? i : i - 30;
  const Plain before = plain_attention(in);
  for (std::int64_t i = 0; i < 30 * shape.stride(); ++i) in.qkv[i] *= -3.0f;
  const Plain after = plain_attention(in);
  for (std::int64_t i = 30 * shape.out_stride(); i < shape.time * shape.out_stride(); ++i) {
    EXPECT_EQ(before.out[i], after.out[i]);
  }
  for (const Level level : kLevelsOfAttention) {
    if (level <= detected_level()) check_level(in, after, level, 1e-5);
  }
}

// Scores far beyond the range of exp: the largest is taken off first.
TEST(AttentionKernelRange, LargeScoresStayFinite) {
  const Shape shape{66, 16, 1, false, false};
  Inputs<float> in(shape);
  for (float& x : in.qkv) x *= 6.0f;
  const Plain plain = plain_attention(in);
  for (const Level level : kLevelsOfAttention) {
    if (level <= detected_level()) check_level(in, plain, level, 5e-4);
  }
}

TEST(AttentionKernelRange, NanIsNotHidden) {
  const Shape shape{65, 16, 1, false, true};
  Inputs<float> in(shape);
  in.qkv[3 * shape.stride() + shape.k()] = NAN;
  std::vector<float> out(shape.time * shape.out_stride()), logsumexp(shape.time);
  std::vector<float> scratch(1 << 20);
  for (const Level level : kLevelsOfAttention) {
    if (level > detected_level()) continue;
    const AttentionTask<float> task{shape.time,
                                    shape.head_dim,
                                    1,
                                    shape.stride(),
                                    shape.out_stride(),
                                    in.qkv.data() + shape.q(),
                                    in.qkv.data() + shape.k(),
                                    in.qkv.data() + shape.v(),
                                    out.data() + shape.q(),
                                    logsumexp.data(),
                                    nullptr,
                                    in.cos.data(),
                                    in.sin.data(),
                                    0.25f};
    attention_kernels<float>(level).forward(task, scratch.data());
    for (std::int64_t i = 0; i < shape.time; ++i) {
      EXPECT_EQ(std::isnan(out[i * shape.out_stride() + shape.q()]), i >= 3)
          << level_name(level) << " token " << i;
    }
  }
}

}  // namespace
}  // namespace omnima::kernels
