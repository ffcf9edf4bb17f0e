// Sequences enter as places become free, step together, and leave when they end.
#include "omnima/generate/engine.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <memory>
#include <numeric>

#include "omnima/core/error.h"
#include "omnima/core/scope.h"
#include "omnima/generate/drafter.h"
#include "omnima/generate/model_runner.h"
#include "omnima/generate/runner.h"
#include "omnima/generate/sampler.h"
#include "omnima/generate/sequence.h"
#include "omnima/generate/speculation.h"

namespace omnima::generate {
namespace {

using core::ConfigError;
using core::require;

// Sequences that step together: each costs memory for its keys and values.
constexpr std::size_t kPlaces = 64;

// Rows of a step that are shared out for proposals: more cost more than they bring.
constexpr std::int64_t kSpeculativeRows = 16;

// Weights that the CPU computes with.
class CpuModel final : public RunnableModel {
 public:
  explicit CpuModel(Weights weights) : weights_(std::move(weights)) {}
  std::unique_ptr<ModelRunner> runner(const models::DecoderConfig& config,
                                      const RunnerOptions& options) const override {
    return std::make_unique<Runner>(config, weights_, options);
  }
  std::unique_ptr<const Change> bind(const ops::AdaptedModel& adapted) const override {
    return std::make_unique<Change>(weights_, adapted);
  }

 private:
  Weights weights_;
};

// A prompt behind the virtual tokens of its adapter.
Ids behind_virtual(std::int64_t count, std::int64_t vocab_size, const Ids& prompt) {
  Ids all(static_cast<std::size_t>(count));
  std::iota(all.begin(), all.end(), vocab_size);
  all.insert(all.end(), prompt.begin(), prompt.end());
  return all;
}

// The changes of the texts of one call; those with the same adapters share one.
class Changes {
 public:
  Changes(const RunnableModel& model, const std::vector<Adapters>& adapters) {
    for (const Adapters& each : adapters) {
      if (each && !bound_.contains(each.get())) bound_[each.get()] = model.bind(*each);
      of_.push_back(each ? bound_[each.get()].get() : nullptr);
    }
  }
  const Change* of(std::size_t text) const { return of_[text]; }
  // In front of a text.
  std::int64_t virtual_tokens(std::size_t text) const {
    return of_[text] == nullptr ? 0 : of_[text]->virtual_tokens().count;
  }

 private:
  std::map<const ops::AdaptedModel*, std::unique_ptr<const Change>> bound_;
  std::vector<const Change*> of_;
};

// One call of Engine::generate.
class Run {
 public:
  Run(const models::DecoderConfig& config, const RunnableModel& model,
      const std::vector<Ids>& prompts, const GenerateOptions& options, const Hooks& hooks,
      const Changes& changes)
      : config_(config),
        prompts_(prompts),
        options_(options),
        hooks_(hooks),
        changes_(changes),
        runner_(model.runner(config, {longest(), static_cast<std::int64_t>(rows()),
                                      options.prompt_precision == "bf16",
                                      cache_format_named(options.cache_precision)})),
        known_(static_cast<std::size_t>(options.known_ids > 0 ? options.known_ids
                                                              : config.vocab_size)),
        logits_(rows() * static_cast<std::size_t>(config.vocab_size)),
        written_(prompts.size()) {
    states_.reserve(rows());
    tokens_.reserve(rows());
  }

  void draft_with(const models::DecoderConfig& config, const RunnableModel& model) {
    drafter_ = std::make_unique<Drafter>(config, model, options_, longest(), places(), known_);
  }

  std::vector<Written> all() {
    std::size_t waiting = 0;
    while (waiting < prompts_.size() || !active_.empty()) {
      while (waiting < prompts_.size() && active_.size() < kPlaces) enter(waiting++);
      if (!active_.empty()) step();
    }
    return std::move(written_);
  }

 private:
  std::int64_t length_of(std::size_t index) const {
    const auto prompt =
        changes_.virtual_tokens(index) + static_cast<std::int64_t>(prompts_[index].size());
    return std::min(prompt + options_.max_new_tokens, config_.max_position_embeddings);
  }

  std::int64_t longest() const {
    std::int64_t most = 1;
    for (std::size_t i = 0; i < prompts_.size(); ++i) most = std::max(most, length_of(i));
    return most;
  }

  // Sequences at once, and rows of a step.
  std::size_t places() const { return std::min(prompts_.size(), kPlaces); }
  std::size_t rows() const {
    if (options_.speculative_tokens == 0) return places();
    const auto of_one = static_cast<std::size_t>(1 + options_.speculative_tokens);
    return std::max(places(), std::min<std::size_t>(kSpeculativeRows, places() * of_one));
  }

  void enter(std::size_t index) {
    const core::Scope scope("prompt");
    const Ids& prompt = prompts_[index];
    const std::int64_t added = changes_.virtual_tokens(index);
    const auto count = added + static_cast<std::int64_t>(prompt.size());
    const std::int64_t length = length_of(index);
    const std::uint64_t seed = options_.seeds[index];
    auto sequence = std::make_unique<Sequence>(Sequence{
        index, prompt, runner_->begin(length, changes_.of(index)),
        Sampler(options_, seed, config_.vocab_size), length - count,
        Ambition(options_.speculative_tokens), drafter_ ? drafter_->begin(length, seed) : nullptr});
    for (const std::int64_t id : prompt) sequence->sampler.saw(id);
    sequence->ids.reserve(static_cast<std::size_t>(length));
    written_[index].ids.reserve(static_cast<std::size_t>(sequence->room));
    sequence->drawn.reserve(static_cast<std::size_t>(1 + options_.speculative_tokens));
    sequence->proposals.reserve(static_cast<std::size_t>(options_.speculative_tokens));
    runner_->prefill(*sequence->state, behind_virtual(added, config_.vocab_size, prompt));
    runner_->logits(count - 1, 1, logits_.data());
    poll();
    draw(*sequence, logits_.data());
    if (drafter_) drafter_->catch_up(*sequence);
    if (!takes(*sequence)) return;
    // Rows with the same adapters are neighbours.
    const auto same = [&](const auto& other) {
      return changes_.of(other->index) == changes_.of(index);
    };
    const auto last = std::find_if(active_.rbegin(), active_.rend(), same);
    active_.insert(last == active_.rend() ? active_.end() : last.base(), std::move(sequence));
  }

  void step() {
    const core::Scope scope("token");
    const auto start = std::chrono::steady_clock::now();
    propose();
    states_.clear();
    tokens_.clear();
    for (const auto& sequence : active_) {
      states_.insert(states_.end(), 1 + sequence->proposals.size(), sequence->state.get());
      tokens_.push_back(sequence->ids.back());
      tokens_.insert(tokens_.end(), sequence->proposals.begin(), sequence->proposals.end());
    }
    runner_->append(states_, tokens_);
    runner_->logits(0, std::ssize(states_), logits_.data());
    poll();
    draw_all();
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    pace_.learn(std::ssize(states_), taken.count());
    std::size_t kept = 0;
    for (std::size_t i = 0; i < active_.size(); ++i) {
      if (!takes(*active_[i])) continue;
      if (kept != i) active_[kept] = std::move(active_[i]);
      ++kept;
    }
    active_.resize(kept);
  }

  // Guesses at what each sequence goes on with.
  void propose() {
    if (options_.speculative_tokens == 0) return;
    const core::Scope scope("speculation");
    const std::int64_t others = std::ssize(active_) - 1;
    const std::int64_t each = kSpeculativeRows / std::ssize(active_) - 1;
    for (const auto& sequence : active_) {
      sequence->proposals.clear();
      sequence->wanted = sequence->ambition.next(pace_, others, std::min(each, sequence->room - 1));
      if (!drafter_) look_up(sequence->ids, sequence->wanted, sequence->proposals);
    }
    if (drafter_) drafter_->propose(active_);
  }

  // The next tokens of every active sequence, each sequence by one thread.
  void draw_all() {
    const auto count = static_cast<std::int64_t>(active_.size());
    errors_.assign(active_.size(), nullptr);
    firsts_.clear();
    std::size_t rows = 0;
    for (const auto& sequence : active_) {
      firsts_.push_back(rows);
      rows += 1 + sequence->proposals.size();
    }
    const auto vocab = static_cast<std::size_t>(config_.vocab_size);
    runner_->team().run(count, 1, [&](std::int64_t begin, std::int64_t end, int) {
      for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
        try {
          draw(*active_[i], &logits_[firsts_[i] * vocab]);
        } catch (...) {
          errors_[i] = std::current_exception();
        }
      }
    });
    for (const auto& error : errors_) {
      if (error) std::rethrow_exception(error);
    }
  }

  // Draws from the rows of a sequence up to the first token that was not proposed: each token is
  // the one that is drawn without proposals, since its row knows only the tokens before.
  void draw(Sequence& sequence, float* logits) const {
    const core::Scope scope("sampling");
    sequence.drawn.clear();
    for (std::size_t i = 0;; ++i, logits += config_.vocab_size) {
      sequence.drawn.push_back(sequence.sampler.next({logits, known_}));
      if (i == sequence.proposals.size() || sequence.drawn[i] != sequence.proposals[i]) return;
    }
  }

  // Adds the tokens that were drawn and forgets the proposals that were wrong; false when the
  // sequence ends.
  bool takes(Sequence& sequence) {
    Written& written = written_[sequence.index];
    const auto right = std::ssize(sequence.drawn) - 1;
    const auto proposed = std::ssize(sequence.proposals);
    sequence.ambition.learn(proposed, right);
    written.proposed += proposed;
    for (std::int64_t i = 0; i <= right; ++i) {
      if (i < right) ++written.accepted;
      if (!takes(sequence, sequence.drawn[static_cast<std::size_t>(i)])) return false;
    }
    const auto known = std::ssize(sequence.ids) - 1;
    sequence.state->truncate(changes_.virtual_tokens(sequence.index) + known);
    if (sequence.draft) {
      SequenceState& state = *sequence.draft->state;
      state.truncate(std::min(state.position(), known));
    }
    return true;
  }

  // Adds one token; false when the sequence ends with it.
  bool takes(Sequence& sequence, std::int64_t id) {
    Written& written = written_[sequence.index];
    sequence.ids.push_back(id);
    written.ids.push_back(id);
    --sequence.room;
    const auto& stops = options_.stop_ids;
    const bool goes_on =
        !hooks_.on_token || hooks_.on_token(static_cast<std::int64_t>(sequence.index), id);
    if (std::find(stops.begin(), stops.end(), id) != stops.end()) {
      written.finish_reason = "eos";
    } else if (!goes_on) {
      written.finish_reason = "stop";
    } else if (sequence.room == 0) {
      written.finish_reason = "length";
    }
    return written.finish_reason.empty();
  }

  void poll() const {
    if (hooks_.poll) hooks_.poll();
  }

  const models::DecoderConfig& config_;
  const std::vector<Ids>& prompts_;
  const GenerateOptions& options_;
  const Hooks& hooks_;
  const Changes& changes_;
  std::unique_ptr<ModelRunner> runner_;  // outlives the states of its sequences
  std::size_t known_;                    // rows of the head beyond it are never drawn
  std::vector<float> logits_;            // [rows, vocab]
  std::vector<Written> written_;
  std::vector<std::unique_ptr<Sequence>> active_;
  std::vector<SequenceState*> states_;  // of the rows of a step
  Ids tokens_;
  std::unique_ptr<Drafter> drafter_;
  Pace pace_;
  std::vector<std::size_t> firsts_;         // row of each active sequence
  std::vector<std::exception_ptr> errors_;  // of the draws
};

}  // namespace

std::unique_ptr<const Change> RunnableModel::bind(const ops::AdaptedModel&) const {
  throw ConfigError(
      "Adapters are chosen for each text on the CPU alone: use set_adapters here, which is for all "
      "texts.");
}

Engine::Engine(models::DecoderConfig config, const Parameters& parameters, const Formats& formats,
               Activations activations, HeadOrder head_order, const at::Device& device,
               Adapters adapters)
    : config_(std::move(config)), adapters_(std::move(adapters)) {
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
  Weights weights(config_, parameters, formats, activations, std::move(head_order), device);
  model_ = make_device_model(config_, weights, device);
  if (!model_) model_ = std::make_unique<CpuModel>(std::move(weights));
}

std::vector<Written> Engine::generate(const std::vector<Ids>& prompts,
                                      const GenerateOptions& options, const Hooks& hooks,
                                      const Engine* draft,
                                      const std::optional<std::vector<Adapters>>& adapters) const {
  require<ConfigError>(!adapters || adapters->size() == prompts.size(), "There are ",
                       prompts.size(), " prompts but ", adapters ? adapters->size() : 0,
                       " choices of adapters: give one a prompt.");
  require<ConfigError>(options.seeds.size() == prompts.size(), "There are ", prompts.size(),
                       " prompts but ", options.seeds.size(), " seeds: give one a prompt.");
  require<ConfigError>(0 <= options.known_ids && options.known_ids <= config_.vocab_size,
                       "known_ids is ", options.known_ids, ", but the model has ",
                       config_.vocab_size, " ids; 0 draws any of them.");
  for (const std::int64_t id : options.stop_ids) {
    require<ConfigError>(id >= 0 && id < config_.vocab_size, "stop_ids has ", id,
                         ", but the vocabulary's ids go from 0 to ", config_.vocab_size - 1, ".");
  }
  const Changes changes(*model_,
                        adapters.value_or(std::vector<Adapters>(prompts.size(), adapters_)));
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    check_prompt(prompts[i], i);
    const std::int64_t room = config_.max_position_embeddings - changes.virtual_tokens(i);
    require<ConfigError>(static_cast<std::int64_t>(prompts[i].size()) < room, "Prompt ", i, " has ",
                         prompts[i].size(), " tokens, but the model's context of ", room,
                         " must hold the prompt and at least one new token. Shorten the prompt.");
  }
  check_draft(options, draft);
  Run run(config_, *model_, prompts, options, hooks, changes);
  if (draft != nullptr) run.draft_with(draft->config_, *draft->model_);
  return run.all();
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
