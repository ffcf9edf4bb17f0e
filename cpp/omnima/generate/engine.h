// Writes on from prompts: prefill, decode and sampling of a list of sequences in one call.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "omnima/generate/call.h"
#include "omnima/generate/fingerprint.h"
#include "omnima/generate/model_runner.h"
#include "omnima/generate/options.h"
#include "omnima/generate/prompt_cache.h"
#include "omnima/generate/weights.h"
#include "omnima/models/decoder_config.h"

namespace omnima::generate {

// References the parameters' storage and keeps no copy, so it follows the model's training. Calls
// from several threads do not disturb each other.
class Engine {
 public:
  // Computes on `device`; parameters that do not lie there are copied. `adapters` stand beside them
  // where a text asks for no others.
  Engine(models::DecoderConfig config, const Parameters& parameters, const Formats& formats = {},
         Activations activations = Activations::kFloat32, HeadOrder head_order = {},
         const at::Device& device = at::kCPU, Adapters adapters = {});

  // `adapters` stand beside the parameters from now on where a text asks for no others.
  void use(Adapters adapters) { adapters_ = std::move(adapters); }
  // One result a prompt, in order. A sequence's tokens depend on its own prompt and seed alone. The
  // prompt and the new tokens together fill the context at most: then the sequence ends by
  // "length". With speculative_tokens a step checks several tokens, guessed by look-up in the
  // sequence or by `draft`, a model with the same vocabulary; the results are the same. Each prompt
  // may have `adapters` of its own. With a `cache` the beginnings of prompts that it knows are not
  // read again, and the texts are kept in it: their numbers may then differ in the last bits.
  std::vector<Written> generate(const std::vector<Ids>& prompts, const GenerateOptions& options,
                                const Hooks& hooks, const Engine* draft = nullptr,
                                const std::optional<std::vector<Adapters>>& adapters = {},
                                PromptCache* cache = nullptr) const;
  // The logits after every token, [time, vocab]: by one prefill, or token by token. `bf16_prompts`:
  // as prompt_precision "bf16". `cache_precision`: as in the options.
  at::Tensor logits(const Ids& ids, bool stepwise, bool bf16_prompts = false,
                    const std::string& cache_precision = "fp32") const;
  // The mean over the tokens of the last hidden states, normed: [hidden]. With adapters, those that
  // are given or in use; their virtual tokens do not count.
  at::Tensor embedding(const Ids& ids, const Adapters& adapters = {}) const;
  std::int64_t vocab_size() const { return config_.vocab_size; }
  // Of the keys and values of kPageTokens tokens. `cache_precision`: as in the options.
  std::int64_t page_bytes(const std::string& cache_precision) const;

  const models::DecoderConfig& config() const { return config_; }
  const RunnableModel& model() const { return *model_; }
  const Adapters& adapters() const { return adapters_; }
  // Throws ConfigError for a prompt that leaves no room for a new token behind `virtual_tokens`, or
  // that has ids the model does not have.
  void check(const Ids& prompt, std::size_t index, std::int64_t virtual_tokens) const;
  // The same for options.
  void check(const GenerateOptions& options) const;
  // Of all that what a text makes of the model depends on, as it is now.
  std::uint64_t fingerprint(const GenerateOptions& options, const Adapters& adapters) const;

 private:
  void check_draft(const GenerateOptions& options, const Engine* draft) const;
  void check_prompt(const Ids& prompt, std::size_t index) const;

  models::DecoderConfig config_;
  Adapters adapters_;
  Parameters parameters_;
  Fingerprint made_of_;  // the config, the formats and what matrices are multiplied with
  std::unique_ptr<RunnableModel> model_;
};

}  // namespace omnima::generate
