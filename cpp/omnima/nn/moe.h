// A mixture of experts in the mlp's place: a router sends each token to a few of many small mlps.
#pragma once

#include <string>
#include <vector>

#include "omnima/nn/layers.h"

namespace omnima::nn {

class Moe {
 public:
  struct Options {
    Mlp::Options expert;  // without biases
    int64_t experts;
    int64_t chosen;       // experts of a token
    bool normalise;       // whether their weights sum to 1
    int64_t shared_size;  // inner width of an mlp that all tokens pass; 0: none
    double capacity;      // in training an expert takes so many times its even share; 0: all
  };
  Moe(Arena& arena, const std::string& name, const Options& options);
  // What is to be added to the stream, whose losses grow in training.
  at::Tensor forward(Stream& stream, const Norm& norm, Pass& pass) const;

 private:
  // What the experts make of the rows, each by itself, for observers and adapters of their layers.
  at::Tensor one_by_one(const at::Tensor& x, const ops::Routes& routes, const Pass& pass) const;
  int64_t most_rows(int64_t rows, const Pass& pass) const;

  int64_t chosen_;
  bool normalise_, shares_;
  double capacity_;
  ops::Activation activation_;
  Slot router_;
  std::vector<Mlp> experts_;
  Mlp shared_;
};

}  // namespace omnima::nn
