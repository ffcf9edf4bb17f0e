// Which parameters move how: multiples of the learning rate and weight decay by name pattern, and
// parameters that are frozen for a while or for good.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "omnima/nn/arena.h"

namespace omnima::optim {

// Whether a name fits a pattern, in which * stands for any text and ? for one character.
bool matches(const std::string& pattern, const std::string& name);

// Elements `first` to `last` - 1 of the arena, which are updated alike.
struct Span {
  int64_t first = 0;
  int64_t last = 0;
  double lr = 1.0;  // multiple of the step's learning rate
  double weight_decay = 0.0;

  int64_t count() const { return last - first; }
  Span part(int64_t from, int64_t size) const {
    return {first + from, first + from + size, lr, weight_decay};
  }
  at::Tensor of(const at::Tensor& flat) const { return flat.narrow(0, first, count()); }
};

class Groups {
 public:
  // Matrices decay by `weight_decay`, vectors do not. A rule is "PATTERN:lr=0.5,weight_decay=0"; of
  // several that name a parameter the last one counts. What is frozen is "PATTERN" for the whole
  // run or "PATTERN@10-200" for these steps, with either number left out for an open end;
  // "PATTERN[:512]" freezes the first 512 rows for the whole run.
  Groups(const nn::Arena& arena, double weight_decay, const std::vector<std::string>& rules = {},
         const std::vector<std::string>& frozen = {});

  bool plain() const { return plain_; }  // no rules, nothing frozen
  // What is updated in a step, counted from 1; neighbours that are updated alike are one span.
  std::vector<Span> moving(std::int64_t step) const;
  std::vector<Span> frozen(std::int64_t step) const;
  // By index of arena.parameters(); empty: none is frozen.
  std::vector<bool> frozen_parameters(std::int64_t step) const;
  // The span of one parameter, an index of arena.parameters(), without its rows that are frozen;
  // nothing while it is frozen as a whole.
  std::optional<Span> parameter(std::size_t index, std::int64_t step) const;
  // How many elements at the front of a parameter belong to rows that are frozen.
  int64_t still(std::size_t index) const { return members_[member_of_[index]].still; }

 private:
  struct Rest {
    std::int64_t first, last;  // steps, inclusive
  };
  struct Member {
    std::size_t index;
    Span span;
    bool is_matrix;
    std::vector<Rest> rests;
    int64_t still = 0;  // elements of the first rows, which never move

    // How many elements at the front are frozen in a step.
    int64_t frozen(std::int64_t step) const;
  };
  std::vector<std::size_t> named(const std::string& pattern, const std::string& rule) const;
  void add_rule(const std::string& rule);
  void add_frozen(const std::string& rule);
  void add_frozen_rows(const std::string& rule, std::size_t bracket);
  std::vector<Span> joined(std::int64_t step, bool frozen) const;

  const nn::Arena& arena_;
  std::vector<Member> members_;         // in the order of the arena
  std::vector<std::size_t> member_of_;  // by index of the parameter
  bool plain_;
};

}  // namespace omnima::optim
