// The draft model's own keys and values follow the text that was accepted.
#include "omnima/generate/drafter.h"

#include <algorithm>
#include <span>

#include "omnima/generate/decode_state.h"

namespace omnima::generate {

Drafter::Drafter(const models::DecoderConfig& config, const RunnableModel& model,
                 const GenerateOptions& options, std::int64_t longest, std::size_t places,
                 std::size_t known)
    : config_(config),
      options_(options),
      known_(known),
      runner_(model.runner(
          config,
          {std::min(longest, config.max_position_embeddings), static_cast<std::int64_t>(places),
           options.prompt_precision == "bf16", cache_format_named(options.cache_precision)})),
      logits_(places * static_cast<std::size_t>(config.vocab_size)) {}

std::unique_ptr<Draft> Drafter::begin(std::int64_t capacity, std::uint64_t seed) {
  const std::int64_t room = std::min(capacity, config_.max_position_embeddings);
  return std::make_unique<Draft>(
      Draft{runner_->begin(room), Sampler(options_, seed, config_.vocab_size)});
}

bool Drafter::catch_up(Sequence& sequence) {
  SequenceState& state = *sequence.draft->state;
  const auto length = std::ssize(sequence.ids);
  if (length + sequence.wanted - 1 > state.capacity()) return false;
  const std::int64_t missing = length - 1 - state.position();
  if (missing > 0) {
    const std::span<const std::int64_t> ids(sequence.ids);
    runner_->prefill(state, ids.subspan(static_cast<std::size_t>(state.position()),
                                        static_cast<std::size_t>(missing)));
  }
  sequence.draft->sampler.follow(sequence.sampler);
  return true;
}

// One token more to each of those that are writing.
void Drafter::step() {
  states_.clear();
  tokens_.clear();
  for (Sequence* sequence : writing_) {
    states_.push_back(sequence->draft->state.get());
    tokens_.push_back(sequence->proposals.empty() ? sequence->ids.back()
                                                  : sequence->proposals.back());
  }
  runner_->append(states_, tokens_);
  runner_->logits(0, std::ssize(writing_), logits_.data());
  for (std::size_t i = 0; i < writing_.size(); ++i) {
    float* logits = &logits_[i * static_cast<std::size_t>(config_.vocab_size)];
    writing_[i]->proposals.push_back(writing_[i]->draft->sampler.next({logits, known_}));
  }
}

void Drafter::propose(const std::vector<std::unique_ptr<Sequence>>& sequences) {
  writing_.clear();
  for (const auto& sequence : sequences) {
    if (sequence->wanted > 0 && catch_up(*sequence)) writing_.push_back(sequence.get());
  }
  while (!writing_.empty()) {
    step();
    std::erase_if(writing_, [](const Sequence* sequence) {
      return std::ssize(sequence->proposals) == sequence->wanted;
    });
  }
}

}  // namespace omnima::generate
