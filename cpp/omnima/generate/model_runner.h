// A model where it is computed with, as the engine knows it: tokens go in at the end of sequences,
// logits come out. Behind it stands the CPU (runner.h) or a device (cuda/device_runner.h).
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>

#include "omnima/generate/pages.h"
#include "omnima/generate/sequence_state.h"
#include "omnima/generate/team.h"
#include "omnima/kernels/cpu/cached_heads.h"
#include "omnima/models/decoder_config.h"
#include "omnima/ops/adapted.h"

namespace omnima::generate {

struct Weights;
class Change;

struct RunnerOptions {
  std::int64_t longest = 1;   // the most tokens that any sequence will hold
  std::int64_t rows = 1;      // the most rows of one append()
  bool bf16_prompts = false;  // the products of a long prompt take bfloat16, with float32 sums
  kernels::CacheFormat cache = kernels::CacheFormat::kFloat32;  // of keys and values
  // Pieces of prompts are read together, all in the same way however few their tokens are.
  bool together = false;
  std::int64_t max_pages = 0;  // of keys and values, of all sequences; 0: as memory has
};

class ModelRunner {
 public:
  virtual ~ModelRunner() = default;

  // A sequence of this runner, without tokens, with the weights as `change` has them; null: as they
  // are. It must outlive neither.
  virtual std::unique_ptr<SequenceState> begin(std::int64_t capacity,
                                               const Change* change = nullptr) = 0;
  // The same with the first `tokens` tokens of a sequence of this model, by whichever runner, with
  // the same weights and cache format; without tokens where those of another room are no use.
  virtual std::unique_ptr<SequenceState> begin_as(const SequenceState&, std::int64_t /*tokens*/,
                                                  std::int64_t capacity,
                                                  const Change* change = nullptr) {
    return begin(capacity, change);
  }
  // Appends all tokens to one sequence; wide matrix products where they pay. Those from vocab_size
  // on are the virtual tokens of its change, which stand first.
  virtual void prefill(SequenceState& state, std::span<const std::int64_t> tokens) = 0;
  // What a sequence appends.
  struct Piece {
    SequenceState* state;
    std::span<const std::int64_t> tokens;
  };
  // Whether read() takes more than one piece. A piece's numbers do not depend on the others.
  virtual bool reads_together() const { return false; }
  // Appends pieces of prompts; rows are counted through them.
  virtual void read(std::span<const Piece> pieces) {
    prefill(*pieces.front().state, pieces.front().tokens);
  }
  // Appends one token to each sequence. A row's numbers do not depend on the other rows.
  virtual void append(std::span<SequenceState* const> states,
                      std::span<const std::int64_t> tokens) = 0;
  // The logits after row `first` and those that follow it, of the call before: [count, vocab].
  virtual void logits(std::int64_t first, std::int64_t count, float* out) = 0;
  // Those after these rows, of a read() that takes many; once, and in their order.
  virtual void logits(std::span<const std::int64_t> rows, float* out) {
    logits(rows.front(), 1, out);
  }
  // What the head would have met there, normed: [count, hidden]. Throws ConfigError where a device
  // does not give it.
  virtual void hidden(std::int64_t first, std::int64_t count, float* out);
  // Threads for work between the calls.
  virtual Team& team() = 0;
  // Where the keys and values of its sequences lie, if it is in pages that they may share; else
  // null.
  virtual const PagePool* pool() const { return nullptr; }
};

// Parameters that are ready to be computed with.
class RunnableModel {
 public:
  virtual ~RunnableModel() = default;
  // Refers to the config and to this.
  virtual std::unique_ptr<ModelRunner> runner(const models::DecoderConfig& config,
                                              const RunnerOptions& options) const = 0;
  // Whether runners of this model begin as others left off: else no text is worth keeping.
  virtual bool keeps_texts() const { return false; }
  // What adapters change in these weights. Throws ConfigError where they cannot stand beside them.
  virtual std::unique_ptr<const Change> bind(const ops::AdaptedModel& adapted) const;
};

// On the device, where it is one that has kernels of its own; nullptr: it is the CPU. Throws
// ConfigError where the build has no such kernels or they cannot compute this model. Parameters
// that lie there are read where they lie, others are copied.
std::unique_ptr<RunnableModel> make_device_model(const models::DecoderConfig& config,
                                                 const Weights& weights, const at::Device& device);
// Why a model of this shape cannot write on a device with kernels of its own; "": it can.
std::string why_not_on_device(const models::DecoderConfig& config);

}  // namespace omnima::generate
