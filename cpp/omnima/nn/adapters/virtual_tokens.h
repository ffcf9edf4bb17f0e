// Tokens that stand in no vocabulary, in front of every document.
#pragma once

#include "omnima/nn/adapters/adapter.h"

namespace omnima::nn {

// Prompt tuning (Lester et al. 2021, "The Power of Scale for Parameter-Efficient Prompt Tuning",
// arXiv 2104.08691): their embeddings learn.
class Prompt : public Adapter {
 public:
  Prompt(const Arena& base, std::vector<Site> sites, const AdapterOptions& options);

  std::int64_t virtual_tokens() const override { return options_.virtual_tokens; }
  at::Tensor embeddings(const Compute& compute) const override;
  void stand_beside(ops::AdaptedModel& model) const override;
  bool combines() const override { return false; }

 private:
  Slot embeddings_;  // [tokens, hidden]
};

// Prefix tuning (Li and Liang 2021, "Prefix-Tuning: Optimizing Continuous Prompts for Generation",
// arXiv 2101.00190), without the network that makes the prefix: their keys and values learn, in
// every layer. Sites: the projections to keys. A key is as attention compares it: normed and
// turned.
class Prefix : public Adapter {
 public:
  Prefix(const Arena& base, std::vector<Site> sites, const AdapterOptions& options);

  std::int64_t virtual_tokens() const override { return options_.virtual_tokens; }
  at::Tensor keys_values(Slot layer, const Compute& compute) const override;
  void stand_beside(ops::AdaptedModel& model) const override;
  bool combines() const override { return false; }

 private:
  std::vector<Slot> keys_values_;  // by site: [tokens, keys then values of all heads]
};

}  // namespace omnima::nn
