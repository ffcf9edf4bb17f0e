// The two ways to cut a chunk of text into pieces share one face.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "omnima/core/error.h"
#include "omnima/core/random.h"
#include "omnima/text/vocabulary.h"

namespace omnima::text {

// Immutable once built; encode may run in many threads at once.
class Model {
 public:
  virtual ~Model() = default;
  // Appends the ids of a chunk of valid UTF-8.
  virtual void encode(std::string_view chunk, std::vector<Id>& out) const = 0;
  // The same, cut by chance: BPE leaves out a share `amount` of its merges, unigram draws a cut
  // with the power `amount` of its probability; a model that can only cut one way does so.
  virtual void encode_by_chance(std::string_view chunk, double /*amount*/, core::Random& /*random*/,
                                std::vector<Id>& out) const {
    encode(chunk, out);
  }
};

// Refuses what positions of 32 bits cannot count.
inline void check_length(std::string_view chunk) {
  constexpr std::size_t kLongest = std::size_t{1} << 30;
  core::require<core::DataError>(chunk.size() <= kLongest, "a stretch of ", chunk.size(),
                                 " bytes that has to be cut as one is longer than ", kLongest,
                                 "; encode the text in parts");
}

std::unique_ptr<Model> make_bpe(const Vocabulary& vocabulary);
std::unique_ptr<Model> make_unigram(const Vocabulary& vocabulary);
std::unique_ptr<Model> make_words(const Vocabulary& vocabulary);

}  // namespace omnima::text
