#include "omnima/generate/engine.h"

#include <ATen/ops/empty.h>

#include <bit>
#include <cmath>
#include <memory>
#include <string>
#include <variant>

#include "omnima/core/error.h"
#include "omnima/generate/compact_copies.h"
#include "omnima/generate/decode_state.h"
#include "omnima/generate/model_runner.h"
#include "omnima/generate/run.h"
#include "omnima/generate/runner.h"

namespace omnima::generate {
namespace {

using core::ConfigError;
using core::require;

// More than any two logits of a model lie apart: it decides alone.
constexpr double kMostBias = 1000;

// Weights that the CPU computes with.
class CpuModel final : public RunnableModel {
 public:
  explicit CpuModel(Weights weights)
      : weights_(std::move(weights)),
        copies_(
            std::make_unique<CompactCopies>(weights_.halves, CompactOptions::from_environment())) {}
  std::unique_ptr<ModelRunner> runner(const models::DecoderConfig& config,
                                      const RunnerOptions& options) const override {
    return std::make_unique<Runner>(config, weights_, options, copies_.get());
  }
  bool keeps_texts() const override { return true; }
  std::unique_ptr<const Change> bind(const ops::AdaptedModel& adapted) const override {
    return std::make_unique<Change>(weights_, adapted);
  }

 private:
  Weights weights_;
  std::unique_ptr<CompactCopies> copies_;  // runners make and use them
};

void add(Fingerprint& to, const std::string& text) { to.add(text); }
void add(Fingerprint& to, double number) { to.add(std::bit_cast<std::uint64_t>(number)); }
void add(Fingerprint& to, bool set) { to.add(std::uint64_t{set}); }
void add(Fingerprint& to, std::int64_t number) { to.add(static_cast<std::uint64_t>(number)); }

}  // namespace

void ModelRunner::hidden(std::int64_t, std::int64_t, float*) {
  throw ConfigError("Hidden states are not read on a GPU: compute them on the CPU.");
}

std::unique_ptr<const Change> RunnableModel::bind(const ops::AdaptedModel&) const {
  throw ConfigError(
      "Adapters are chosen for each text on the CPU alone: use set_adapters here, which is for all "
      "texts.");
}

Engine::Engine(models::DecoderConfig config, const Parameters& parameters, const Formats& formats,
               Activations activations, HeadOrder head_order, const at::Device& device,
               Adapters adapters)
    : config_(std::move(config)), adapters_(std::move(adapters)), parameters_(parameters) {
  require<ConfigError>(
      config_.causal,
      "A model with causal false sees both sides of a token and cannot write text: "
      "it fills masks. Take one that was trained with causal true.");
  require<ConfigError>(!config_.reward_head,
                       "A reward model says how good a text is, and cannot write: ask it with "
                       "model.reward(texts), or take the model it was made of.");
  require<ConfigError>(device.is_cpu() || activations == Activations::kFloat32,
                       "activations=\"bf16\" and \"int8\" are the CPU's: on ", device.str(),
                       " matrices are multiplied with float32. Leave it out.");
  for (const auto& [name, value] : config_.values()) {
    made_of_.add(name);
    std::visit([&](const auto& set) { add(made_of_, set); }, value);
  }
  for (const auto& [name, format] : formats) made_of_.add(name + format);
  for (const std::int64_t place : head_order) made_of_.add(static_cast<std::uint64_t>(place));
  made_of_.add(static_cast<std::uint64_t>(activations));
  Weights weights(config_, parameters, formats, activations, std::move(head_order), device);
  model_ = make_device_model(config_, weights, device);
  if (!model_) model_ = std::make_unique<CpuModel>(std::move(weights));
}

std::vector<Written> Engine::generate(const std::vector<Ids>& prompts,
                                      const GenerateOptions& options, const Hooks& hooks,
                                      const Engine* draft,
                                      const std::optional<std::vector<Adapters>>& adapters,
                                      PromptCache* cache) const {
  require<ConfigError>(!adapters || adapters->size() == prompts.size(), "There are ",
                       prompts.size(), " prompts but ", adapters ? adapters->size() : 0,
                       " choices of adapters: give one a prompt.");
  require<ConfigError>(options.seeds.size() == prompts.size(), "There are ", prompts.size(),
                       " prompts but ", options.seeds.size(), " seeds: give one a prompt.");
  check(options);
  const auto chosen = adapters.value_or(std::vector<Adapters>(prompts.size(), adapters_));
  const Changes changes(*model_, chosen);
  for (std::size_t i = 0; i < prompts.size(); ++i) check(prompts[i], i, changes.virtual_tokens(i));
  check_draft(options, draft);
  std::optional<Keeping> keeping;
  if (cache != nullptr && model_->keeps_texts()) {
    keeping.emplace(Keeping{cache, {}});
    for (const Adapters& each : chosen) {
      keeping->weights.push_back(fingerprint(options, each));
    }
  }
  Run run(config_, *model_, prompts, options, hooks, changes, std::move(keeping));
  if (draft != nullptr) run.draft_with(draft->config_, *draft->model_);
  return run.all();
}

std::uint64_t Engine::fingerprint(const GenerateOptions& options, const Adapters& adapters) const {
  Fingerprint found = made_of_;
  found.add(options.prompt_precision);
  found.add(options.cache_precision);
  for (const auto& [name, tensor] : parameters_) {
    found.add(name);
    found.add(tensor);
  }
  if (!adapters) return found.value();
  for (const auto& [name, adapted] : adapters->linears) {
    found.add(name);
    for (const at::Tensor& leaf : adapted.leaves()) found.add(leaf);
    for (const ops::LowRank& product : adapted.products) {
      for (const auto& part : product.parts) found.add(std::bit_cast<std::uint64_t>(part.scale));
    }
  }
  for (const auto& [name, behind] : adapters->behind) {
    found.add(name);
    for (const at::Tensor& each : {behind.down, behind.down_bias, behind.up, behind.up_bias}) {
      found.add(each);
    }
  }
  found.add(adapters->embeddings);
  for (const at::Tensor& each : adapters->keys_values) found.add(each);
  return found.value();
}

void Engine::check_draft(const GenerateOptions& options, const Engine* draft) const {
  if (draft == nullptr) return;
  require<ConfigError>(options.speculative_tokens > 0,
                       "A draft model is given, but speculative_tokens is 0: give at least 1.");
  require<ConfigError>(draft->config_.vocab_size == config_.vocab_size, "The draft model has ",
                       draft->config_.vocab_size, " ids, but the model has ", config_.vocab_size,
                       ": a draft model must have the same vocabulary.");
}

at::Tensor Engine::logits(const Ids& ids, bool stepwise, bool bf16_prompts,
                          const std::string& cache_precision) const {
  check_prompt(ids, 0);
  const Changes changes(*model_, {adapters_});
  const std::int64_t added = changes.virtual_tokens(0);
  const auto count = static_cast<std::int64_t>(ids.size());
  require<ConfigError>(added + count <= config_.max_position_embeddings, "There are ", count,
                       " tokens, but the model's context holds ", config_.max_position_embeddings,
                       ".");
  const auto runner = model_->runner(
      config_, {added + count, 1, bf16_prompts, cache_format_named(cache_precision)});
  const auto state = runner->begin(added + count, changes.of(0));
  const Ids first = behind_virtual(added, config_.vocab_size, stepwise ? Ids{} : ids);
  if (!first.empty()) runner->prefill(*state, first);
  at::Tensor out = at::empty({count, config_.vocab_size}, at::kFloat);
  float* data = out.mutable_data_ptr<float>();
  if (!stepwise) {
    runner->logits(added, count, data);
    return out;
  }
  SequenceState* const states[] = {state.get()};
  for (std::int64_t i = 0; i < count; ++i) {
    runner->append(states, {&ids[i], 1});
    runner->logits(0, 1, data + i * config_.vocab_size);
  }
  return out;
}

std::int64_t Engine::page_bytes(const std::string& cache_precision) const {
  return PageLayout(config_, cache_format_named(cache_precision)).page_bytes();
}

void Engine::check(const GenerateOptions& options) const {
  require<ConfigError>(0 <= options.known_ids && options.known_ids <= config_.vocab_size,
                       "known_ids is ", options.known_ids, ", but the model has ",
                       config_.vocab_size, " ids; 0 draws any of them.");
  for (const std::int64_t id : options.stop_ids) {
    require<ConfigError>(id >= 0 && id < config_.vocab_size, "stop_ids has ", id,
                         ", but the vocabulary's ids go from 0 to ", config_.vocab_size - 1, ".");
  }
  for (const auto& [id, bias] : options.logit_bias) {
    require<ConfigError>(id >= 0 && id < config_.vocab_size, "logit_bias has ", id,
                         ", but the vocabulary's ids go from 0 to ", config_.vocab_size - 1, ".");
    require<ConfigError>(std::abs(bias) <= kMostBias, "logit_bias of token ", id, " is ", bias,
                         "; it goes from ", -kMostBias, " to ", kMostBias, ".");
  }
}

void Engine::check(const Ids& prompt, std::size_t index, std::int64_t virtual_tokens) const {
  check_prompt(prompt, index);
  const std::int64_t room = config_.max_position_embeddings - virtual_tokens;
  require<ConfigError>(static_cast<std::int64_t>(prompt.size()) < room, "Prompt ", index, " has ",
                       prompt.size(), " tokens, but the model's context of ", room,
                       " must hold the prompt and at least one new token. Shorten the prompt.");
}

at::Tensor Engine::embedding(const Ids& ids, const Adapters& adapters) const {
  check_prompt(ids, 0);
  const Changes changes(*model_, {adapters ? adapters : adapters_});
  const std::int64_t added = changes.virtual_tokens(0);
  const auto count = static_cast<std::int64_t>(ids.size());
  require<ConfigError>(added + count <= config_.max_position_embeddings, "There are ", count,
                       " tokens, but the model's context holds ",
                       config_.max_position_embeddings - added, ".");
  const auto runner = model_->runner(config_, {added + count, 1, false, {}});
  const auto state = runner->begin(added + count, changes.of(0));
  runner->prefill(*state, behind_virtual(added, config_.vocab_size, ids));
  const at::Tensor states = at::empty({count, config_.hidden_size}, at::kFloat);
  runner->hidden(added, count, states.mutable_data_ptr<float>());
  return states.mean(0);
}

void Engine::check_prompt(const Ids& prompt, std::size_t index) const {
  require<ConfigError>(!prompt.empty(), "Prompt ", index,
                       " has no tokens: start it with one, such as the begin token.");
  for (const std::int64_t id : prompt) {
    require<ConfigError>(id >= 0 && id < config_.vocab_size, "Prompt ", index, " has token id ", id,
                         ", but the model's vocabulary of ", config_.vocab_size,
                         " has ids from 0 to ", config_.vocab_size - 1,
                         ". Is this the model's own tokenizer?");
  }
}

}  // namespace omnima::generate
