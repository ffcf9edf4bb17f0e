// Once it is under way, writing allocates nothing: every `new` of this program is counted.
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>
#include <optional>
#include <string>

#include "../models/families.h"
#include "omnima/generate/engine.h"
#include "omnima/models/decoder.h"

namespace {

std::atomic<bool> counting{false};
std::atomic<int> allocations{0};

void* counted(std::size_t size, std::size_t alignment) {
  if (counting.load(std::memory_order_relaxed)) ++allocations;
  const std::size_t unit = alignment > sizeof(void*) ? alignment : sizeof(void*);
  void* memory = std::aligned_alloc(unit, (size + unit - 1) / unit * unit + (size == 0 ? unit : 0));
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

// The other forms of the language call these.
void* operator new(std::size_t size) { return counted(size, alignof(std::max_align_t)); }
void* operator new(std::size_t size, std::align_val_t alignment) {
  return counted(size, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

namespace omnima::generate {
namespace {

constexpr std::int64_t kVocab = 61;

// The allocations from the second step of all sequences to the last but one.
int allocations_of(const Engine& engine, const std::vector<Ids>& prompts, GenerateOptions options,
                   const std::optional<std::vector<Adapters>>& adapters = {}) {
  constexpr int kTokens = 20;
  options.max_new_tokens = kTokens;
  for (std::size_t i = 0; i < prompts.size(); ++i) options.seeds.push_back(i);
  int steps = 0;
  Hooks hooks;
  hooks.on_token = [&](std::int64_t sequence, std::int64_t) {
    if (sequence != 0) return true;
    ++steps;
    if (steps == 2) counting = true;
    if (steps == kTokens - 1) counting = false;
    return true;
  };
  hooks.poll = [] {};
  allocations = 0;
  engine.generate(prompts, options, hooks, nullptr, adapters);
  EXPECT_EQ(steps, kTokens);
  return allocations;
}

models::DecoderConfig config_of(models::Changes values) {
  values.insert({"vocab_size", kVocab});
  values.insert({"hidden_size", std::int64_t{32}});
  values.insert({"num_hidden_layers", std::int64_t{2}});
  values.insert({"num_attention_heads", std::int64_t{4}});
  values.insert({"max_position_embeddings", std::int64_t{48}});
  return models::DecoderConfig::from_values(values);
}

Engine engine_of(const models::Changes& values) {
  const models::Decoder model(config_of(values), 3);
  const auto named = model.named_parameters();
  return Engine(model.config(), {named.begin(), named.end()});
}

class Allocation : public testing::TestWithParam<int> {
 protected:
  void SetUp() override { at::set_num_threads(GetParam()); }
  void TearDown() override { at::set_num_threads(before_); }

 private:
  int before_ = at::get_num_threads();
};

TEST_P(Allocation, IsSeenByTheCount) {
  allocations = 0;
  counting = true;
  const auto made = std::make_unique<std::string>(100, 'x');
  counting = false;
  EXPECT_EQ(allocations, 2);
}

TEST_P(Allocation, NoTokenOfAnyFamilyNeedsOne) {
  for (const auto& changes : models::families()) {
    const Engine engine = engine_of(changes);
    std::string name;
    for (const auto& change : changes) name += change.first + " ";
    EXPECT_EQ(allocations_of(engine, {{1}}, {}), 0) << name;
    EXPECT_EQ(allocations_of(engine, {{1}, {2}, {3, 4}, {5}, {6}}, {}), 0) << name;
  }
}

TEST_P(Allocation, NoPrecisionOfTheCacheNeedsOne) {
  for (const auto& changes : models::families()) {
    const Engine engine = engine_of(changes);
    for (const char* precision : {"bf16", "int8"}) {
      GenerateOptions options;
      options.cache_precision = precision;
      EXPECT_EQ(allocations_of(engine, {{1}}, options), 0) << precision;
      EXPECT_EQ(allocations_of(engine, {{1}, {2}, {3, 4}, {5}, {6}}, options), 0) << precision;
    }
  }
}

TEST_P(Allocation, NoWayOfDrawingNeedsOne) {
  const Engine engine = engine_of({});
  GenerateOptions options;
  options.temperature = 0.8;
  EXPECT_EQ(allocations_of(engine, {{1}, {2}}, options), 0);
  options.repetition_penalty = 1.1;
  options.top_k = 7;
  EXPECT_EQ(allocations_of(engine, {{1}, {2}}, options), 0);
  options.top_k = 0;
  options.top_p = 0.9;
  options.min_p = 0.01;
  EXPECT_EQ(allocations_of(engine, {{1}, {2}}, options), 0);
}

TEST_P(Allocation, NoAdapterOfARowNeedsOne) {
  models::Decoder model(config_of({}), 3);
  std::vector<Adapters> chosen{nullptr};
  for (const char* kind : {"lora", "dora", "vera", "bitfit", "bottleneck", "prefix"}) {
    const std::string name = kind;
    std::vector<std::string> modules{"self_attn.k_proj", "mlp.up_proj", "mlp.down_proj"};
    if (name == "bottleneck") modules = {"self_attn.o_proj", "mlp.down_proj"};
    if (name == "prefix") modules = {"self_attn.k_proj"};
    std::vector<nn::Site> sites;
    for (const std::string layer : {"model.layers.0.", "model.layers.1."}) {
      for (const auto& module : modules) {
        sites.push_back(nn::Adapters::find_site(model.arena(), layer + module, {layer + module}));
        sites.back().rank = 3;
      }
    }
    nn::AdapterOptions options;
    options.kind = kind;
    options.virtual_tokens = name == "prefix" ? 2 : 0;
    model.adapters().add(model.arena(), name, nn::make_adapter(model.arena(), sites, options));
    chosen.push_back(
        std::make_shared<ops::AdaptedModel>(model.adapters().beside(model.arena(), {{name, 1.0}})));
  }
  const auto named = model.named_parameters();
  const Engine engine(model.config(), {named.begin(), named.end()});
  for (const Adapters& each : chosen) {
    EXPECT_EQ(allocations_of(engine, {{1}}, {}, {{each}}), 0);
  }
  const std::vector<Ids> prompts{{1}, {2}, {3, 4}, {5}, {6}, {7}, {1}, {2}, {3}};
  EXPECT_EQ(allocations_of(engine, prompts, {},
                           {{chosen[1], chosen[0], chosen[2], chosen[1], chosen[2], chosen[3],
                             chosen[4], chosen[5], chosen[6]}}),
            0);
}

INSTANTIATE_TEST_SUITE_P(Threads, Allocation, testing::Values(1, 2));

}  // namespace
}  // namespace omnima::generate
