// A decode step's rows: embedding, the way into the caches, and attention against plain doubles.
#include "omnima/kernels/cuda/decode_attention.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>

#include <cstring>

#include "cuda_fixture.h"

namespace omnima::kernels::cuda {
namespace {

struct Case {
  int heads, kv_heads, head_dim;
  std::vector<std::int64_t> positions;  // of the rows; -1: none
  std::int64_t window = 0;
  float softcap = 0;
  bool alibi = false, relative = false;
  std::int64_t longest = 0;  // 0: as the longest row asks
};

constexpr int kLayers = 2;

// Caches of several sequences, drawn, and the rows that name them.
struct Sequences {
  explicit Sequences(const Case& c, at::ScalarType type) {
    std::uint64_t seed = 50;
    for (const std::int64_t position : c.positions) {
      const std::int64_t capacity = position + 3;
      caches.push_back(drawn({kLayers, c.kv_heads, 2, capacity, c.head_dim}, ++seed).to(type));
      DecodeRow row{0, position, caches.back().data_ptr(), capacity, nullptr, nullptr};
      if (position < 0) row.cache = nullptr;
      rows.push_back(row);
      longest = std::max(longest, capacity);
    }
  }
  std::vector<at::Tensor> caches;
  std::vector<DecodeRow> rows;
  std::int64_t longest = 1;
};

// One row in doubles.
at::Tensor expected(const Case& c, const Sequences& s, const at::Tensor& q, std::size_t row,
                    int layer, float scale, const AttentionTask& task) {
  const std::int64_t position = c.positions[row];
  const std::int64_t begin = c.window > 0 ? std::max<std::int64_t>(0, position + 1 - c.window) : 0;
  const std::int64_t count = position + 1 - begin;
  const int group = c.heads / c.kv_heads;
  const at::Tensor out = at::zeros({c.heads, c.head_dim}, at::kDouble);
  for (int head = 0; head < c.heads; ++head) {
    const at::Tensor cache = s.caches[row][layer][head / group].to(at::kDouble);
    const at::Tensor keys = cache[0].narrow(0, begin, count);
    at::Tensor scores = keys.mv(q[static_cast<std::int64_t>(row)][head].to(at::kDouble)) * scale;
    if (c.softcap > 0) scores = (scores / c.softcap).tanh() * c.softcap;
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t distance = position - begin - i;
      if (c.alibi) scores[i] -= task.slopes[head] * static_cast<double>(distance);
      if (c.relative) scores[i] += task.bias[task.buckets[distance] * c.heads + head];
    }
    out[head].copy_(at::softmax(scores, 0).unsqueeze(0).mm(cache[1].narrow(0, begin, count))[0]);
  }
  return out;
}

template <class T>
void check(const Case& c, at::ScalarType type) {
  const Sequences s(c, type);
  const auto count = static_cast<std::int64_t>(s.rows.size());
  const std::int64_t longest = c.longest > 0 ? c.longest : s.longest;
  const at::Tensor q = drawn({count, c.heads, c.head_dim}, 3);
  const at::Tensor slopes = at::arange(1, c.heads + 1, at::kFloat) / 10;
  const at::Tensor buckets = at::arange(longest, at::kLong).remainder(4);
  const at::Tensor bias = drawn({4, c.heads}, 6);
  AttentionTask task{};
  task.rows = s.rows.data();
  task.count = count;
  task.q = data<float>(q);
  task.longest = longest;
  task.layer = 1;
  task.heads = c.heads;
  task.kv_heads = c.kv_heads;
  task.head_dim = c.head_dim;
  task.window = c.window;
  task.scale = 0.3f;
  task.softcap = c.softcap;
  if (c.alibi) task.slopes = data<float>(slopes);
  if (c.relative) {
    task.buckets = data<std::int64_t>(buckets);
    task.bias = data<float>(bias);
  }
  const Tensors got = in_both_orders([&] {
    const at::Tensor out = at::full_like(q, -7);
    const at::Tensor partial =
        at::full({attention_scratch(count, c.heads, c.head_dim, task.longest)}, NAN, at::kFloat);
    task.out = data<float>(out);
    task.partial = data<float>(partial);
    decode_attention<T>(task, nullptr);
    return Tensors{out};
  });
  for (std::int64_t row = 0; row < count; ++row) {
    if (c.positions[row] < 0) {
      EXPECT_EQ(got[0][row].max().template item<float>(), -7) << "a row without a token";
      continue;
    }
    EXPECT_LE(
        distance(got[0][row], expected(c, s, q, static_cast<std::size_t>(row), 1, 0.3f, task)),
        1e-5)
        << "row " << row << " at " << c.positions[row] << ", " << c.heads << " heads of "
        << c.head_dim;
  }
}

TEST(DecodeAttention, EqualsItsMeaning) {
  const std::vector<Case> cases{
      {4, 2, 16, {0, 5, 31}},
      {1, 1, 64, {255, 256, 257}},  // at the border of a stretch
      {6, 2, 10, {700, 3, -1, 511}},
      {9, 3, 8, {40}, 0, 0, true},
      {10, 1, 32, {17, 300}, 0, 2.0f},  // more query heads than a block takes
      {4, 4, 5, {260, 12}, 7},
      {4, 2, 16, {600, 12, 0}, 300, 0, false, true},
      {2, 1, 256, {4}},
      {4, 2, 16, {0, 5, 31}, 0, 0, false, false, 2000}};
  for (const Case& c : cases) {
    check<float>(c, at::kFloat);
    check<bfloat16>(c, at::kBFloat16);
  }
}

// A row's numbers are the same to the bit whatever a step's longest sequence may be.
TEST(DecodeAttention, DoesNotDependOnTheRoomOfTheOthers) {
  const Case c{4, 2, 16, {200}};
  const Sequences s(c, at::kFloat);
  const at::Tensor q = drawn({1, 4, 16}, 3);
  Tensors found;
  for (const std::int64_t longest : {203, 256, 257, 5000}) {
    const at::Tensor out = at::zeros_like(q);
    const at::Tensor partial = at::zeros({attention_scratch(1, 4, 16, longest)}, at::kFloat);
    AttentionTask task{s.rows.data(),
                       1,
                       data<float>(q),
                       data<float>(out),
                       data<float>(partial),
                       longest,
                       0,
                       4,
                       2,
                       16,
                       0,
                       0.3f};
    decode_attention<float>(task, nullptr);
    found.push_back(out);
    EXPECT_TRUE(same_bits(found.front(), out)) << longest;
  }
}

template <class T>
void check_place(int heads, int kv_heads, int head_dim, bool turns, at::ScalarType type) {
  const Case c{heads, kv_heads, head_dim, {6, -1, 2}};
  const std::int64_t half = head_dim / 2;
  const at::Tensor cos = drawn({16, half}, 1), sin = drawn({16, half}, 2);
  const at::Tensor q = drawn({3, heads, head_dim}, 3), k = drawn({3, kv_heads, head_dim}, 4);
  const at::Tensor v = drawn({3, kv_heads, head_dim}, 5);
  const auto turned = [&](const at::Tensor& x, std::int64_t position) {
    if (!turns) return x;
    const at::Tensor a = x.narrow(-1, 0, half), b = x.narrow(-1, half, half);
    return at::cat({a * cos[position] - b * sin[position], b * cos[position] + a * sin[position]},
                   -1);
  };
  const Sequences before(c, type);
  std::vector<at::Tensor> kept;
  for (const auto& cache : before.caches) kept.push_back(cache.clone());
  const Tensors got = in_both_orders([&] {
    Sequences s(c, type);
    for (DecodeRow& row : s.rows) {
      row.cos = data<float>(cos);
      row.sin = data<float>(sin);
    }
    const at::Tensor out = q.clone();
    PlaceTask<T> task{};
    task.rows = s.rows.data();
    task.count = 3;
    task.q = data<float>(out);
    task.k = data<float>(k);
    task.v = data<float>(v);
    task.turns = turns;
    task.layer = 1;
    task.heads = heads;
    task.kv_heads = kv_heads;
    task.head_dim = head_dim;
    decode_place(task, nullptr);
    return Tensors{out, s.caches[0], s.caches[1], s.caches[2]};
  });
  for (const std::int64_t row : {0, 2}) {
    const std::int64_t position = c.positions[static_cast<std::size_t>(row)];
    EXPECT_LE(distance(got[0][row], turned(q[row], position)), 1e-6);
    kept[static_cast<std::size_t>(row)][1]
        .select(1, 0)
        .select(1, position)
        .copy_(turned(k[row], position));
    kept[static_cast<std::size_t>(row)][1].select(1, 1).select(1, position).copy_(v[row]);
  }
  EXPECT_TRUE(same_bits(got[0][1], q[1]));
  for (std::size_t row = 0; row < 3; ++row) {
    EXPECT_LE(distance(got[1 + row], kept[row]), type == at::kFloat ? 1e-6 : 1e-2) << row;
  }
}

TEST(DecodePlace, TurnsAndRemembers) {
  check_place<float>(4, 2, 16, true, at::kFloat);
  check_place<float>(3, 1, 6, true, at::kFloat);
  check_place<float>(2, 2, 7, false, at::kFloat);
  check_place<bfloat16>(4, 2, 16, true, at::kBFloat16);
}

TEST(DecodeEmbed, ReadsScalesAndAddsPlaces) {
  const at::Tensor table = drawn({9, 20}, 1).to(at::kBFloat16), places = drawn({6, 20}, 2);
  DecodeMatrix embedding, positions;
  embedding.numbers = table.const_data_ptr();
  embedding.outputs = 9;
  positions.inputs = embedding.inputs = 20;
  embedding.row_bytes = 40;
  embedding.kind = Numbers::kBfloat16;
  positions.numbers = places.const_data_ptr();
  positions.outputs = 6;
  positions.row_bytes = 80;
  const std::vector<DecodeRow> rows{{8, 5, nullptr, 0, nullptr, nullptr},
                                    {0, -1, nullptr, 0, nullptr, nullptr},
                                    {3, 0, nullptr, 0, nullptr, nullptr}};
  for (const bool placed : {false, true}) {
    const Tensors x = in_both_orders([&] {
      const at::Tensor out = at::full({3, 20}, 5, at::kFloat);
      decode_embed(
          {embedding, placed ? positions : DecodeMatrix{}, 1.5f, rows.data(), 3, data<float>(out)},
          nullptr);
      return Tensors{out};
    });
    for (const std::int64_t row : {0, 2}) {
      at::Tensor wanted = table[rows[static_cast<std::size_t>(row)].token].to(at::kFloat) * 1.5;
      if (placed) wanted = wanted + places[rows[static_cast<std::size_t>(row)].position];
      EXPECT_LE(distance(x[0][row], wanted), 1e-6);
    }
    EXPECT_EQ(x[0][1].abs().max().item<float>(), 0);
  }
}

}  // namespace
}  // namespace omnima::kernels::cuda
