// One call of Engine::generate: sequences enter as places become free, step together, and leave
// when they end.
#pragma once

#include <cstdint>
#include <exception>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "omnima/generate/call.h"
#include "omnima/generate/change.h"
#include "omnima/generate/drafter.h"
#include "omnima/generate/model_runner.h"
#include "omnima/generate/prompt_cache.h"
#include "omnima/generate/sequence.h"
#include "omnima/generate/speculation.h"

namespace omnima::generate {

// A prompt behind the virtual tokens of its adapter.
Ids behind_virtual(std::int64_t count, std::int64_t vocab_size, const Ids& prompt);

// The changes of the texts of one call; those with the same adapters share one.
class Changes {
 public:
  Changes(const RunnableModel& model, const std::vector<Adapters>& adapters);
  const Change* of(std::size_t text) const { return of_[text]; }
  // In front of a text.
  std::int64_t virtual_tokens(std::size_t text) const {
    return of_[text] == nullptr ? 0 : of_[text]->virtual_tokens().count;
  }

 private:
  std::map<const ops::AdaptedModel*, std::unique_ptr<const Change>> bound_;
  std::vector<const Change*> of_;
};

// Where texts are kept, and what computes each of them (fingerprint.h).
struct Keeping {
  PromptCache* cache;
  std::vector<std::uint64_t> weights;
};

class Run {
 public:
  // Refers to all of them but for `keeping`.
  Run(const models::DecoderConfig& config, const RunnableModel& model,
      const std::vector<Ids>& prompts, const GenerateOptions& options, const Hooks& hooks,
      const Changes& changes, std::optional<Keeping> keeping);

  void draft_with(const models::DecoderConfig& config, const RunnableModel& model);
  std::vector<Written> all();

 private:
  std::int64_t length_of(std::size_t index) const;
  std::int64_t longest() const;
  // Sequences at once, and rows of a step.
  std::size_t places() const;
  std::size_t rows() const;
  void enter(std::size_t index);
  // A state that knows as much of a text's prompt as is kept, but for its last token.
  std::unique_ptr<SequenceState> begin(std::size_t index, std::int64_t length);
  void step();
  // Guesses at what each sequence goes on with.
  void propose();
  // The next tokens of every active sequence, each sequence by one thread.
  void draw_all();
  // Draws from the rows of a sequence up to the first token that was not proposed: each token is
  // the one that is drawn without proposals, since its row knows only the tokens before.
  void draw(Sequence& sequence, float* logits) const;
  // Adds the tokens that were drawn and forgets the proposals that were wrong; false when the
  // sequence ends.
  bool takes(Sequence& sequence);
  // Adds one token; false when the sequence ends with it.
  bool takes(Sequence& sequence, std::int64_t id);
  // Of a sequence that has ended, for a later call.
  void keep(Sequence& sequence);
  void poll() const {
    if (hooks_.poll) hooks_.poll();
  }

  const models::DecoderConfig& config_;
  const std::vector<Ids>& prompts_;
  const GenerateOptions& options_;
  const Hooks& hooks_;
  const Changes& changes_;
  std::optional<Keeping> keeping_;
  std::unique_ptr<ModelRunner> runner_;  // outlives the states of its sequences, but for kept ones
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

}  // namespace omnima::generate
