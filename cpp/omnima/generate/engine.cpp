// Sequences enter as places become free, step together, and leave when they end.
#include "omnima/generate/engine.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <exception>
#include <memory>

#include "omnima/core/error.h"
#include "omnima/core/scope.h"
#include "omnima/generate/runner.h"
#include "omnima/generate/sampler.h"

namespace omnima::generate {
namespace {

using core::ConfigError;
using core::require;

// Sequences that step together: each costs memory for its keys and values.
constexpr std::size_t kPlaces = 64;

struct Sequence {
  std::size_t index;
  DecodeState state;
  Sampler sampler;
  std::int64_t room;  // tokens it may still write
};

// One call of Engine::generate.
class Run {
 public:
  Run(const models::DecoderConfig& config, const Weights& weights, const std::vector<Ids>& prompts,
      const GenerateOptions& options, const Hooks& hooks)
      : config_(config),
        prompts_(prompts),
        options_(options),
        hooks_(hooks),
        runner_(config, weights, longest()),
        known_(static_cast<std::size_t>(options.known_ids > 0 ? options.known_ids
                                                              : config.vocab_size)),
        logits_(std::min(prompts.size(), kPlaces) * config.vocab_size),
        written_(prompts.size()) {}

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
    return std::min(static_cast<std::int64_t>(prompts_[index].size()) + options_.max_new_tokens,
                    config_.max_position_embeddings);
  }

  std::int64_t longest() const {
    std::int64_t most = 1;
    for (std::size_t i = 0; i < prompts_.size(); ++i) most = std::max(most, length_of(i));
    return most;
  }

  void enter(std::size_t index) {
    const core::Scope scope("prompt");
    const Ids& prompt = prompts_[index];
    const auto count = static_cast<std::int64_t>(prompt.size());
    auto sequence = std::make_unique<Sequence>(Sequence{
        index, DecodeState(config_, length_of(index)),
        Sampler(options_, options_.seeds[index], config_.vocab_size), length_of(index) - count});
    for (const std::int64_t id : prompt) sequence->sampler.saw(id);
    written_[index].ids.reserve(static_cast<std::size_t>(sequence->room));
    runner_.prefill(sequence->state, prompt);
    runner_.logits(count - 1, 1, logits_.data());
    poll();
    const std::int64_t id = first_of(*sequence);
    if (takes(*sequence, id)) active_.push_back(std::move(sequence));
  }

  std::int64_t first_of(Sequence& sequence) {
    const core::Scope scope("sampling");
    return sequence.sampler.next({logits_.data(), known_});
  }

  void step() {
    const core::Scope scope("token");
    states_.clear();
    tokens_.clear();
    for (const auto& sequence : active_) {
      states_.push_back(&sequence->state);
      tokens_.push_back(written_[sequence->index].ids.back());
    }
    runner_.append(states_, tokens_);
    runner_.logits(0, static_cast<std::int64_t>(active_.size()), logits_.data());
    poll();
    draw();
    std::size_t kept = 0;
    for (std::size_t i = 0; i < active_.size(); ++i) {
      if (!takes(*active_[i], tokens_[i])) continue;
      if (kept != i) active_[kept] = std::move(active_[i]);
      ++kept;
    }
    active_.resize(kept);
  }

  // The next token of every active sequence into tokens_, each sequence by one thread.
  void draw() {
    const core::Scope scope("sampling");
    const auto vocab = static_cast<std::size_t>(config_.vocab_size);
    const auto count = static_cast<std::int64_t>(active_.size());
    errors_.assign(active_.size(), nullptr);
    runner_.team().run(count, 1, [&](std::int64_t begin, std::int64_t end, int) {
      for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
        try {
          tokens_[i] = active_[i]->sampler.next({&logits_[i * vocab], known_});
        } catch (...) {
          errors_[i] = std::current_exception();
        }
      }
    });
    for (const auto& error : errors_) {
      if (error) std::rethrow_exception(error);
    }
  }

  // Adds the sequence's next token; false when the sequence ends with it.
  bool takes(Sequence& sequence, std::int64_t id) {
    Written& written = written_[sequence.index];
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
  Runner runner_;
  std::size_t known_;          // rows of the head beyond it are never drawn
  std::vector<float> logits_;  // [places, vocab]
  std::vector<Written> written_;
  std::vector<std::unique_ptr<Sequence>> active_;
  std::vector<DecodeState*> states_;
  Ids tokens_;
  std::vector<std::exception_ptr> errors_;  // of the draws
};

}  // namespace

Engine::Engine(models::DecoderConfig config, const Parameters& parameters, const Formats& formats,
               Activations activations, HeadOrder head_order)
    : config_(std::move(config)),
      weights_(config_, parameters, formats, activations, std::move(head_order)) {
  require<ConfigError>(
      config_.causal,
      "A model with causal false sees both sides of a token and cannot write text: "
      "it fills masks. Take one that was trained with causal true.");
}

std::vector<Written> Engine::generate(const std::vector<Ids>& prompts,
                                      const GenerateOptions& options, const Hooks& hooks) const {
  require<ConfigError>(options.seeds.size() == prompts.size(), "There are ", prompts.size(),
                       " prompts but ", options.seeds.size(), " seeds: give one a prompt.");
  require<ConfigError>(0 <= options.known_ids && options.known_ids <= config_.vocab_size,
                       "known_ids is ", options.known_ids, ", but the model has ",
                       config_.vocab_size, " ids; 0 draws any of them.");
  for (const std::int64_t id : options.stop_ids) {
    require<ConfigError>(id >= 0 && id < config_.vocab_size, "stop_ids has ", id,
                         ", but the vocabulary's ids go from 0 to ", config_.vocab_size - 1, ".");
  }
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    check_prompt(prompts[i], i);
    require<ConfigError>(
        static_cast<std::int64_t>(prompts[i].size()) < config_.max_position_embeddings, "Prompt ",
        i, " has ", prompts[i].size(), " tokens, but the model's context of ",
        config_.max_position_embeddings,
        " must hold the prompt and at least one new token. Shorten the prompt.");
  }
  return Run(config_, weights_, prompts, options, hooks).all();
}

at::Tensor Engine::logits(const Ids& ids, bool stepwise) const {
  check_prompt(ids, 0);
  const auto count = static_cast<std::int64_t>(ids.size());
  require<ConfigError>(count <= config_.max_position_embeddings, "There are ", count,
                       " tokens, but the model's context holds ", config_.max_position_embeddings,
                       ".");
  Runner runner(config_, weights_, count);
  DecodeState state(config_, count);
  at::Tensor out = at::empty({count, config_.vocab_size}, at::kFloat);
  float* data = out.mutable_data_ptr<float>();
  if (!stepwise) {
    runner.prefill(state, ids);
    runner.logits(0, count, data);
    return out;
  }
  DecodeState* const states[] = {&state};
  for (std::int64_t i = 0; i < count; ++i) {
    runner.append(states, {&ids[i], 1});
    runner.logits(0, 1, data + i * config_.vocab_size);
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
