// The two ways to cut a chunk of text into pieces share one face.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "omnima/core/random.h"
#include "omnima/text/vocabulary.h"

namespace omnima::text {

// Immutable once built; encode may run in many threads at once.
class Model {
 public:
  virtual ~Model() = default;
  // Appends the ids of a chunk of valid UTF-8.
  virtual void encode(std::string_view chunk, std::vector<Id>& out) const = 0;
  // The same with merges left out by chance; a model without merges encodes as ever.
  virtual void encode_dropped(std::string_view chunk, double /*dropout*/, core::Random& /*random*/,
                              std::vector<Id>& out) const {
    encode(chunk, out);
  }
};

std::unique_ptr<Model> make_bpe(const Vocabulary& vocabulary);
std::unique_ptr<Model> make_unigram(const Vocabulary& vocabulary);
std::unique_ptr<Model> make_words(const Vocabulary& vocabulary);

}  // namespace omnima::text
