#include "omnima/generate/run.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <span>
#include <utility>

#include "omnima/core/scope.h"
#include "omnima/generate/decode_state.h"

namespace omnima::generate {
namespace {

// Sequences that step together: each costs memory for its keys and values.
constexpr std::size_t kPlaces = 64;

// Rows of a step that are shared out for proposals: more cost more than they bring.
constexpr std::int64_t kSpeculativeRows = 16;

}  // namespace

Ids behind_virtual(std::int64_t count, std::int64_t vocab_size, const Ids& prompt) {
  Ids all(static_cast<std::size_t>(count));
  std::iota(all.begin(), all.end(), vocab_size);
  all.insert(all.end(), prompt.begin(), prompt.end());
  return all;
}

Changes::Changes(const RunnableModel& model, const std::vector<Adapters>& adapters) {
  for (const Adapters& each : adapters) {
    if (each && !bound_.contains(each.get())) bound_[each.get()] = model.bind(*each);
    of_.push_back(each ? bound_[each.get()].get() : nullptr);
  }
}

Run::Run(const models::DecoderConfig& config, const RunnableModel& model,
         const std::vector<Ids>& prompts, const GenerateOptions& options, const Hooks& hooks,
         const Changes& changes, std::optional<Keeping> keeping)
    : config_(config),
      prompts_(prompts),
      options_(options),
      hooks_(hooks),
      changes_(changes),
      keeping_(std::move(keeping)),
      runner_(model.runner(
          config, {longest(), static_cast<std::int64_t>(rows()), options.prompt_precision == "bf16",
                   cache_format_named(options.cache_precision)})),
      known_(
          static_cast<std::size_t>(options.known_ids > 0 ? options.known_ids : config.vocab_size)),
      logits_(rows() * static_cast<std::size_t>(config.vocab_size)),
      written_(prompts.size()) {
  states_.reserve(rows());
  tokens_.reserve(rows());
}

void Run::draft_with(const models::DecoderConfig& config, const RunnableModel& model) {
  drafter_ = std::make_unique<Drafter>(config, model, options_, longest(), places(), known_);
}

std::vector<Written> Run::all() {
  std::size_t waiting = 0;
  while (waiting < prompts_.size() || !active_.empty()) {
    while (waiting < prompts_.size() && active_.size() < kPlaces) enter(waiting++);
    if (!active_.empty()) step();
  }
  return std::move(written_);
}

std::int64_t Run::length_of(std::size_t index) const {
  const auto prompt =
      changes_.virtual_tokens(index) + static_cast<std::int64_t>(prompts_[index].size());
  return std::min(prompt + options_.max_new_tokens, config_.max_position_embeddings);
}

std::int64_t Run::longest() const {
  std::int64_t most = 1;
  for (std::size_t i = 0; i < prompts_.size(); ++i) most = std::max(most, length_of(i));
  return most;
}

std::size_t Run::places() const { return std::min(prompts_.size(), kPlaces); }

std::size_t Run::rows() const {
  if (options_.speculative_tokens == 0) return places();
  const auto of_one = static_cast<std::size_t>(1 + options_.speculative_tokens);
  return std::max(places(), std::min<std::size_t>(kSpeculativeRows, places() * of_one));
}

void Run::enter(std::size_t index) {
  const core::Scope scope("prompt");
  const Ids& prompt = prompts_[index];
  const std::int64_t added = changes_.virtual_tokens(index);
  const auto count = added + static_cast<std::int64_t>(prompt.size());
  const std::int64_t length = length_of(index);
  const std::uint64_t seed = options_.seeds[index];
  auto sequence = std::make_unique<Sequence>(Sequence{
      index, prompt, begin(index, length), Sampler(options_, seed, config_.vocab_size),
      length - count, Ambition(options_.speculative_tokens), LookUp(options_.speculative_tokens),
      drafter_ ? drafter_->begin(length, seed) : nullptr});
  for (const std::int64_t id : prompt) sequence->sampler.saw(id);
  sequence->ids.reserve(static_cast<std::size_t>(length));
  written_[index].ids.reserve(static_cast<std::size_t>(sequence->room));
  sequence->drawn.reserve(static_cast<std::size_t>(1 + options_.speculative_tokens));
  sequence->proposals.reserve(static_cast<std::size_t>(options_.speculative_tokens));
  const Ids all = behind_virtual(added, config_.vocab_size, prompt);
  const std::int64_t known = sequence->state->position();
  written_[index].cached = std::max<std::int64_t>(0, known - added);
  runner_->prefill(*sequence->state, std::span(all).subspan(static_cast<std::size_t>(known)));
  runner_->logits(count - known - 1, 1, logits_.data());
  poll();
  draw(*sequence, logits_.data());
  if (drafter_) drafter_->catch_up(*sequence);
  if (!takes(*sequence)) return keep(*sequence);
  // Rows with the same adapters are neighbours.
  const auto same = [&](const auto& other) {
    return changes_.of(other->index) == changes_.of(index);
  };
  const auto last = std::find_if(active_.rbegin(), active_.rend(), same);
  active_.insert(last == active_.rend() ? active_.end() : last.base(), std::move(sequence));
}

std::unique_ptr<SequenceState> Run::begin(std::size_t index, std::int64_t length) {
  const Change* const change = changes_.of(index);
  if (!keeping_) return runner_->begin(length, change);
  const std::span all(prompts_[index]);
  const std::uint64_t weights = keeping_->weights[index];
  const std::int64_t added = changes_.virtual_tokens(index);
  const auto found = keeping_->cache->find(weights, all.first(all.size() - 1));
  const SequenceState* best = found.state.get();
  std::int64_t most = found.tokens;
  for (const auto& other : active_) {  // a text of this call may share more
    if (keeping_->weights[other->index] != weights) continue;
    const auto end = std::ranges::mismatch(all.first(all.size() - 1), other->ids).in1;
    // A state does not remember the newest token.
    const std::int64_t shared =
        std::min<std::int64_t>(end - all.begin(), other->state->position() - added);
    if (shared > most) best = other->state.get(), most = shared;
  }
  if (best == nullptr) return runner_->begin(length, change);
  return runner_->begin_as(*best, added + most, length, change);
}

void Run::keep(Sequence& sequence) {
  if (!keeping_) return;
  // A sequence that ends may hold wrong proposals, and it does not hold its last token.
  const std::int64_t added = changes_.virtual_tokens(sequence.index);
  const std::int64_t known =
      std::min(sequence.state->position() - added, std::ssize(sequence.ids) - 1);
  sequence.state->truncate(added + known);
  sequence.ids.resize(static_cast<std::size_t>(known));
  keeping_->cache->keep(keeping_->weights[sequence.index], std::move(sequence.ids),
                        std::move(sequence.state));
}

void Run::step() {
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
    if (!takes(*active_[i])) {
      keep(*active_[i]);
      continue;
    }
    if (kept != i) active_[kept] = std::move(active_[i]);
    ++kept;
  }
  active_.resize(kept);
}

void Run::propose() {
  if (options_.speculative_tokens == 0) return;
  const core::Scope scope("speculation");
  const std::int64_t others = std::ssize(active_) - 1;
  const std::int64_t each = kSpeculativeRows / std::ssize(active_) - 1;
  for (const auto& sequence : active_) {
    sequence->proposals.clear();
    const std::int64_t limit = std::min(each, sequence->room - 1);
    if (drafter_) {
      sequence->wanted = sequence->ambition.next(pace_, others, limit);
    } else {
      sequence->look_up.propose(sequence->ids, pace_, others, limit, sequence->proposals);
    }
  }
  if (drafter_) drafter_->propose(active_);
}

void Run::draw_all() {
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

void Run::draw(Sequence& sequence, float* logits) const {
  const core::Scope scope("sampling");
  sequence.drawn.clear();
  for (std::size_t i = 0;; ++i, logits += config_.vocab_size) {
    sequence.drawn.push_back(sequence.sampler.next({logits, known_}));
    if (i == sequence.proposals.size() || sequence.drawn[i] != sequence.proposals[i]) return;
  }
}

bool Run::takes(Sequence& sequence) {
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

bool Run::takes(Sequence& sequence, std::int64_t id) {
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

}  // namespace omnima::generate
