#include "omnima/generate/batch.h"

#include <algorithm>
#include <utility>

#include "omnima/core/error.h"
#include "omnima/core/mix.h"
#include "omnima/core/scope.h"
#include "omnima/generate/decode_state.h"
#include "omnima/generate/logprobs.h"
#include "omnima/generate/run.h"
#include "omnima/kernels/cpu/logits.h"
#include "omnima/models/rotary.h"

namespace omnima::generate {
namespace {

using core::ConfigError;
using core::require;

// Adapters that no text asks for stay bound up to so many.
constexpr std::size_t kBound = 16;

void check_options(const BatchOptions& options) {
  require<ConfigError>(options.max_sequences >= 1, "max_sequences is ", options.max_sequences,
                       ": at least one text must have a place.");
  require<ConfigError>(options.chunk_tokens >= 1 && options.chunk_tokens % kPageTokens == 0,
                       "chunk_tokens is ", options.chunk_tokens,
                       ": a step reads whole pages, so it must be a multiple of ", kPageTokens,
                       ".");
  require<ConfigError>(options.memory_bytes >= 0 && options.kept_bytes >= 0, "memory_bytes is ",
                       options.memory_bytes, " and kept_bytes ", options.kept_bytes,
                       ": neither can be less than 0.");
  require<ConfigError>(options.prompt_precision == "fp32" || options.prompt_precision == "bf16",
                       "prompt_precision is \"", options.prompt_precision,
                       "\"; the choices are fp32 and bf16.");
}

// Where keys and values do not lie in pages they are counted as if they did: a device's text takes
// no more than the CPU's pages of as many tokens.
Batch::Memory pages_allowed(const Engine& engine, const BatchOptions& options) {
  const std::int64_t page = engine.page_bytes(options.cache_precision);
  const std::int64_t most = options.memory_bytes / page;
  require<ConfigError>(options.memory_bytes == 0 || most > 0, "memory_bytes is ",
                       options.memory_bytes, ", but keys and values of ", kPageTokens,
                       " tokens of this model take ", page, " bytes.");
  return {page, most, 0, 0};
}

RunnerOptions runner_options(const Engine& engine, const BatchOptions& options) {
  const models::DecoderConfig& config = engine.config();
  RunnerOptions made{config.max_position_embeddings, options.max_sequences,
                     options.prompt_precision == "bf16",
                     cache_format_named(options.cache_precision)};
  made.together = true;
  made.max_pages = pages_allowed(engine, options).most;
  return made;
}

}  // namespace

Batch::Batch(const Engine& engine, BatchOptions options, Constrain constrain)
    : engine_(engine),
      options_((check_options(options), std::move(options))),
      constrain_(std::move(constrain)),
      limits_(pages_allowed(engine, options_)),
      runner_(engine.model().runner(engine.config(), runner_options(engine, options_))),
      kept_(runner_->pool() == nullptr ? 0 : options_.kept_bytes / runner_->pool()->page_bytes()),
      logits_(static_cast<std::size_t>(options_.max_sequences * engine.config().vocab_size)) {}

const Change* Batch::bind(const Adapters& adapters) {
  if (!adapters) return nullptr;
  const auto found = bound_.find(adapters.get());
  if (found != bound_.end()) return found->second.change.get();
  if (bound_.size() >= kBound) {
    std::erase_if(bound_, [&](const auto& each) {
      const auto uses = [&](const auto& text) { return text->change == each.second.change.get(); };
      return std::ranges::none_of(reading_, uses) && std::ranges::none_of(writing_, uses);
    });
  }
  auto change = engine_.model().bind(*adapters);
  return bound_.emplace(adapters.get(), Bound{adapters, std::move(change)})
      .first->second.change.get();
}

std::int64_t Batch::virtual_tokens(const Request& request) const {
  if (!request.adapters) return 0;
  if (!request.adapters->keys_values.empty()) {
    return request.adapters->keys_values.front().size(0);
  }
  const at::Tensor& embeddings = request.adapters->embeddings;
  return embeddings.defined() ? embeddings.size(0) : 0;
}

std::int64_t Batch::length_of(const Request& request) const {
  const std::int64_t read = virtual_tokens(request) + std::ssize(request.prompt);
  return std::min(read + request.options.max_new_tokens, engine_.config().max_position_embeddings);
}

void Batch::check(const Request& request) const {
  engine_.check(request.options);
  engine_.check(request.prompt, 0, virtual_tokens(request));
  require<ConfigError>(request.options.seeds.size() == 1, "A request has one seed, not ",
                       request.options.seeds.size(), ".");
  require<ConfigError>(request.options.speculative_tokens == 0,
                       "Texts that share steps are written without speculation: leave "
                       "speculative_tokens at 0.");
  require<ConfigError>(!request.constrained || constrain_ != nullptr,
                       "The request is constrained, but nothing says which tokens may follow: "
                       "give the scheduler constrain.");
  const std::int64_t most = limits_.most;
  require<ConfigError>(
      most == 0 || pages_for(length_of(request)) <= most, "The prompt has ", request.prompt.size(),
      " tokens and max_new_tokens is ", request.options.max_new_tokens,
      ", but the memory for keys and values holds ", most * kPageTokens, " tokens (", most,
      " pages of ", limits_.page_bytes, " bytes): ask for less, or give more memory.");
}

std::uint64_t Batch::weights_of(const Request& request) const {
  GenerateOptions options = request.options;
  options.prompt_precision = options_.prompt_precision;
  options.cache_precision = options_.cache_precision;
  const std::uint64_t weights = engine_.fingerprint(options, request.adapters);
  const std::int64_t length = length_of(request);
  // Tables that follow a text's room turn its keys otherwise.
  const bool follows = models::rotary_follows_length(engine_.config(), length);
  return follows ? core::mix(weights, static_cast<std::uint64_t>(length)) : weights;
}

bool Batch::has_place(const Request& request) {
  if (size() >= options_.max_sequences) return false;
  if (limits_.most == 0) return true;
  const std::int64_t needed = pages_for(length_of(request)) - (limits_.most - pages_in_use());
  // What is kept stays where forgetting it would not be enough.
  return needed <= 0 || kept_.free_pages(needed);
}

void Batch::enter(std::uint64_t id, Request request) {
  const Change* const change = bind(request.adapters);
  const std::int64_t vocab = engine_.config().vocab_size;
  auto text = std::make_unique<Text>(Text{id, std::move(request), change, {}, {}, {}});
  const Request& asked = text->request;
  const std::int64_t length = length_of(asked);
  text->tokens = behind_virtual(virtual_tokens(asked), vocab, asked.prompt);
  text->room = length - std::ssize(text->tokens);
  text->state = runner_->begin(length, change);
  text->piece = core::mix(secret_, asked.weights);
  text->sampler.emplace(asked.options, asked.options.seeds.at(0), vocab);
  for (const std::int64_t token : asked.prompt) text->sampler->saw(token);
  reading_.push_back(std::move(text));
}

bool Batch::cancel(std::uint64_t id) {
  const auto is_it = [&](const auto& text) { return text->id == id; };
  return std::erase_if(reading_, is_it) + std::erase_if(writing_, is_it) > 0;
}

void Batch::fail(const std::string& error, std::vector<Event>& events) {
  const auto end = [&](auto& texts) {
    for (const auto& text : texts) {
      events.push_back({.request = text->id, .finish_reason = "error", .error = error});
    }
    texts.clear();
  };
  end(reading_);
  end(writing_);
}

std::int64_t Batch::pages_in_use() const {
  if (runner_->pool() != nullptr) return runner_->pool()->in_use();
  std::int64_t pages = 0;
  for (const auto& text : reading_) pages += pages_for(text->state->capacity());
  for (const auto& text : writing_) pages += pages_for(text->state->capacity());
  return pages;
}

Batch::Memory Batch::memory() const {
  Memory found = limits_;
  found.kept = kept_.idle_pages();
  found.texts = pages_in_use() - found.kept;
  return found;
}

void Batch::step(std::vector<Event>& events) {
  ++counts_.steps;
  if (!reading_.empty()) read(events);
  if (!writing_.empty()) write(events);
}

void Batch::read(std::vector<Event>& events) {
  const core::Scope scope("prompt");
  // They stay in their places until they are read: what throws here ends them with the others.
  const std::int64_t texts = choose_pieces();
  runner_->read(pieces_);
  if (!last_rows_.empty()) runner_->logits(last_rows_, logits_.data());
  auto piece = pieces_.begin();
  for (std::int64_t i = 0; i < texts; ++i) {
    Text& text = *reading_[static_cast<std::size_t>(i)];
    std::int64_t begin = text.read;
    for (; piece != pieces_.end() && piece->state == text.state.get(); ++piece) {
      keep_piece(text, begin, piece->tokens);
      begin += std::ssize(piece->tokens);
    }
    counts_.prompt_tokens += begin - text.read;
    text.read = begin;
  }
  // Those that are not read to their end wait behind the others.
  Texts ready;
  for (std::int64_t i = 0; i < texts; ++i) {
    auto text = std::move(reading_.front());
    reading_.pop_front();
    const bool whole = text->read == std::ssize(text->tokens);
    if (whole) {
      ready.push_back(std::move(text));
    } else {
      reading_.push_back(std::move(text));
    }
  }
  if (ready.empty()) return;
  try {
    draw(ready);
  } catch (...) {  // they end with the others
    for (auto& text : ready) reading_.push_back(std::move(text));
    throw;
  }
  for (auto& text : ready) {
    if (tell(*text, events)) begin_writing(std::move(text));
  }
}

void Batch::begin_writing(std::unique_ptr<Text> text) {
  const auto same = [&](const auto& other) { return other->change == text->change; };
  const auto last = std::find_if(writing_.rbegin(), writing_.rend(), same);
  writing_.insert(last == writing_.rend() ? writing_.end() : last.base(), std::move(text));
}

std::int64_t Batch::choose_pieces() {
  pieces_.clear();
  last_rows_.clear();
  std::int64_t rows = 0, texts = 0;
  for (const auto& text : reading_) {
    // What adapters add keeps sums apart that otherwise are one: each reads with its like.
    if (text->change != reading_.front()->change) return texts;
    take_known(*text);
    for (std::int64_t at = text->read; at < std::ssize(text->tokens);) {
      const auto piece = piece_at(*text, at);
      const bool fits = rows + std::ssize(piece) <= options_.tokens_at_once;
      if (!pieces_.empty() && !(fits && runner_->reads_together())) return texts;
      if (at == text->read) ++texts;
      rows += std::ssize(piece);
      at += std::ssize(piece);
      pieces_.push_back({text->state.get(), piece});
      if (at == std::ssize(text->tokens)) last_rows_.push_back(rows - 1);
    }
  }
  return texts;
}

// Pieces end at the same places whatever else there is to do.
std::span<const std::int64_t> Batch::piece_at(const Text& text, std::int64_t begin) const {
  const std::int64_t chunk = options_.chunk_tokens;
  const std::int64_t end = std::min((begin / chunk + 1) * chunk, std::ssize(text.tokens));
  return std::span(text.tokens)
      .subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
}

// Another text may have read the next pieces, since this one's turn was; the last token is read in
// any case, for its logits.
void Batch::take_known(Text& text) {
  while (true) {
    const auto piece = piece_at(text, text.read);
    const std::int64_t count = std::ssize(piece);
    const bool last = text.read + count == std::ssize(text.tokens);
    if (last || count != options_.chunk_tokens) return;
    const auto pages = kept_.find(text.piece, piece);
    if (pages.empty()) return;
    text.state->take_pages(text.read / kPageTokens, pages);
    text.state->advance(count);
    text.read += count;
    text.piece = PrefixCache::key_of(text.piece, piece);
    text.cached += count;
    counts_.cached_tokens += count;
  }
}

void Batch::keep_piece(Text& text, std::int64_t begin, std::span<const std::int64_t> piece) {
  if (std::ssize(piece) != options_.chunk_tokens) return;
  auto pages = text.state->pages(begin / kPageTokens, pages_for(std::ssize(piece)));
  if (!pages.empty()) kept_.keep(text.piece, piece, std::move(pages));
  text.piece = PrefixCache::key_of(text.piece, piece);
}

void Batch::write(std::vector<Event>& events) {
  const core::Scope scope("token");
  states_.clear();
  tokens_.clear();
  for (const auto& text : writing_) {
    states_.push_back(text->state.get());
    tokens_.push_back(text->newest);
  }
  runner_->append(states_, tokens_);
  runner_->logits(0, std::ssize(states_), logits_.data());
  draw(writing_);
  std::erase_if(writing_, [&](auto& text) { return !tell(*text, events); });
}

void Batch::draw(std::span<const std::unique_ptr<Text>> texts) {
  constrain(texts);
  const auto vocab = static_cast<std::size_t>(engine_.config().vocab_size);
  runner_->team().run(std::ssize(texts), 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
      Text& text = *texts[i];
      if (!text.error.empty()) continue;
      try {
        const std::int64_t known = text.request.options.known_ids;
        const std::size_t count = known > 0 ? static_cast<std::size_t>(known) : vocab;
        draw(text, {&logits_[i * vocab], count}, rules_[i]);
      } catch (const std::exception& error) {
        text.error = error.what();
      }
    }
  });
}

void Batch::draw(Text& text, std::span<float> logits, std::span<const std::int32_t> allowed) const {
  const core::Scope scope("sampling");
  text.logprobs.clear();
  if (text.request.top_logprobs < 0 ||
      !kernels::logit_kernels().all_finite(logits.data(), std::ssize(logits))) {
    text.newest = text.sampler->next(logits, allowed);
    return;
  }
  const Logprobs logprobs(logits, text.request.top_logprobs);
  const std::vector<float> before(logits.begin(), logits.end());
  text.newest = text.sampler->next(logits, allowed);
  text.logprobs.push_back(logprobs.of(before[static_cast<std::size_t>(text.newest)]));
}

void Batch::constrain(std::span<const std::unique_ptr<Text>> texts) {
  rules_.assign(texts.size(), {});
  asking_.clear();
  newest_.clear();
  for (const auto& text : texts) {
    if (!text->request.constrained) continue;
    asking_.push_back(text->id);
    newest_.push_back(text->begun ? text->newest : -1);
  }
  if (asking_.empty()) return;
  masks_.assign(asking_.size() * words(), 0);
  std::vector<std::string> errors = constrain_(asking_, newest_, masks_);
  if (errors.size() != asking_.size()) {
    errors.assign(asking_.size(), core::message("constrain was asked about ", asking_.size(),
                                                " requests and answered ", errors.size(),
                                                " errors: it must give one for each."));
  }
  std::size_t row = 0;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    if (!texts[i]->request.constrained) continue;
    texts[i]->error = errors.at(row);
    rules_[i] = std::span(masks_).subspan(row++ * words(), words());
  }
}

bool Batch::tell(Text& text, std::vector<Event>& events) {
  Event event{.request = text.id};
  if (!text.error.empty()) {
    event.finish_reason = "error";
    event.error = text.error;
    events.push_back(std::move(event));
    return false;
  }
  if (!text.begun) {
    event.cached = std::max<std::int64_t>(0, text.cached - virtual_tokens(text.request));
  }
  text.begun = true;
  --text.room;
  ++counts_.new_tokens;
  const auto& stops = text.request.options.stop_ids;
  if (std::find(stops.begin(), stops.end(), text.newest) != stops.end()) {
    event.finish_reason = "eos";
  } else if (text.room == 0) {
    event.finish_reason = "length";
  }
  event.ids = {text.newest};
  event.logprobs = std::move(text.logprobs);
  const bool goes_on = event.finish_reason.empty();
  events.push_back(std::move(event));
  return goes_on;
}

}  // namespace omnima::generate
