// The two ways to cut a chunk of text into pieces share one face.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "omnima/text/vocabulary.h"

namespace omnima::text {

// Immutable once built; encode may run in many threads at once.
class Model {
 public:
  virtual ~Model() = default;
  // Appends the ids of a chunk of valid UTF-8.
  virtual void encode(std::string_view chunk, std::vector<Id>& out) const = 0;
};

std::unique_ptr<Model> make_bpe(const Vocabulary& vocabulary);
std::unique_ptr<Model> make_unigram(const Vocabulary& vocabulary);

}  // namespace omnima::text
