#include "omnima/models/quantize.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/outer.h>
#include <c10/core/GradMode.h>

#include <algorithm>

#include "omnima/core/error.h"
#include "omnima/models/foldable.h"
#include "omnima/ops/product.h"
#include "omnima/quant/methods/method.h"

namespace omnima::models {

using core::ConfigError;
using core::DataError;
using core::require;

namespace {

constexpr std::int64_t kTokensAtOnce = 512;
constexpr std::int64_t kNumbersAtOnce = 1 << 20;  // of a matrix whose rows stand alone

bool is_finite(const at::Tensor& numbers) {
  for (const at::Tensor& part : numbers.reshape({-1}).split(kNumbersAtOnce)) {
    if (!at::isfinite(part).all().item<bool>()) return false;
  }
  return true;
}

// The second moments of what the linear layers of a block multiply with, by their first parameter.
class Moments : public nn::InputObserver {
 public:
  void see(nn::Slot weight, const at::Tensor& x) override {
    const at::Tensor rows = x.reshape({-1, x.size(-1)});
    Sum& sum = sums_[weight.first];
    const at::Tensor more = ops::symmetric_product(rows.t(), rows, at::kFloat);
    sum.count = weight.count;
    sum.rows += rows.size(0);
    sum.sum = sum.sum.defined() ? sum.sum.add_(more) : more;
  }

  // Of the parameter with this index: the mean of x x^T, or undefined where none came by.
  at::Tensor of(std::int64_t parameter) {
    Sum* sum = find(parameter);
    if (sum == nullptr) return {};
    if (!sum->mean.defined()) sum->mean = sum->sum.div_(static_cast<double>(sum->rows));
    return sum->mean;
  }

  // The inputs were divided by s.
  void divide(std::int64_t parameter, const at::Tensor& s) {
    if (Sum* sum = find(parameter)) sum->mean = of(parameter).div(at::outer(s, s));
  }

 private:
  struct Sum {
    std::int64_t count = 0, rows = 0;
    at::Tensor sum, mean;
  };

  Sum* find(std::int64_t parameter) {
    auto after = sums_.upper_bound(parameter);
    if (after == sums_.begin()) return nullptr;
    --after;
    return parameter < after->first + after->second.count ? &after->second : nullptr;
  }

  std::map<std::int64_t, Sum> sums_;
};

class Quantizer {
 public:
  Quantizer(Decoder& model, const QuantizeOptions& options)
      : model_(model), options_(options), method_(quant::method_named(options.method)) {
    const auto& parameters = model.arena().parameters();
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      places_[parameters[i].name] = static_cast<std::int64_t>(i);
    }
    check();
  }

  // The blocks of the model's layers by their parameters' names: "model.layers.3."; "" for the
  // rest.
  void matrices_of(const std::string& prefix, Moments& moments) {
    for (const auto& [name, format] : options_.formats) {
      if (prefix.empty() ? name.starts_with(kLayers) : !name.starts_with(prefix)) continue;
      const std::int64_t place = places_.at(name);
      const at::Tensor weight = model_.arena().leaf(place).detach();
      made_.push_back({name, format, quantized(weight, format, moments.of(place))});
    }
  }

  // Moves scales from what the matrices of a block read into the matrices.
  void scale(const std::string& prefix, Moments& moments) {
    if (method_.scales == nullptr) return;
    for (const Foldable& fold : foldables(prefix, places_)) {
      const std::int64_t first = places_.at(fold.readers.front());
      if (!moments.of(first).defined() || !alike(fold.readers)) continue;
      std::vector<at::Tensor> weights;
      for (const auto& name : fold.readers) weights.push_back(leaf(name));
      const auto& format = quant::format_named(options_.formats.at(fold.readers.front()));
      const at::Tensor s = method_.scales(format, weights, moments.of(first));
      if (!s.defined()) continue;
      for (const at::Tensor& weight : weights) weight.mul_(s);
      for (const auto& name : fold.writers) {
        const at::Tensor written = leaf(name);
        written.div_(written.dim() == 1 ? s : s.unsqueeze(1));
      }
      moments.divide(first, s);
    }
  }

  bool reads_text() const { return method_.reads_text; }
  std::vector<QuantizedParameter> take() { return std::move(made_); }

  static constexpr const char* kLayers = "model.layers.";

 private:
  // The blocks of a matrix, which then holds their numbers. Without moments its rows know nothing
  // of each other: a table of all tokens is done in parts, in little memory.
  at::Tensor quantized(const at::Tensor& weight, const std::string& format_name,
                       const at::Tensor& moments) const {
    const auto& format = quant::format_named(format_name);
    const std::int64_t rows = weight.size(0), inputs = weight.size(1);
    const std::int64_t part =
        moments.defined() ? rows : std::max<std::int64_t>(1, kNumbersAtOnce / inputs);
    const at::Tensor blocks = at::empty({rows, format.row_bytes(inputs)}, at::kByte);
    for (std::int64_t first = 0; first < rows; first += part) {
      const std::int64_t count = std::min(part, rows - first);
      const at::Tensor some = weight.narrow(0, first, count);
      const auto levels = method_.quantize(format, some, moments);
      some.copy_(levels.numbers());
      blocks.narrow(0, first, count).copy_(levels.blocks());
    }
    return blocks;
  }

  at::Tensor leaf(const std::string& name) const {
    return model_.arena().leaf(places_.at(name)).detach();
  }

  // Whether all are to be quantized, in the same format.
  bool alike(const std::vector<std::string>& names) const {
    const auto first = options_.formats.find(names.front());
    return first != options_.formats.end() &&
           std::all_of(names.begin(), names.end(), [&](const auto& name) {
             const auto found = options_.formats.find(name);
             return found != options_.formats.end() && found->second == first->second;
           });
  }

  void check() const {
    for (const auto& [name, format_name] : options_.formats) {
      const auto found = places_.find(name);
      require<ConfigError>(found != places_.end(), "There is no parameter \"", name,
                           "\" to be quantized.");
      const auto& sizes = model_.arena().parameters()[found->second].sizes;
      const auto& format = quant::format_named(format_name);
      require<ConfigError>(sizes.size() == 2 && sizes[1] % format.numbers == 0, "The parameter \"",
                           name, "\" of the shape ", at::IntArrayRef(sizes),
                           " does not lie in blocks of ", format_name, ", which hold ",
                           format.numbers, " numbers.");
      require<ConfigError>(format.grid != nullptr, "No method chooses levels of ", format_name,
                           " (parameter \"", name, "\").");
    }
    for (const auto& [name, place] : places_) {
      require<DataError>(is_finite(model_.arena().leaf(place).detach()), "The parameter \"", name,
                         "\" holds NaN or infinity: the model is damaged, and is not quantized.");
    }
    require<DataError>(model_.arena().weights().is_cpu(),
                       "A model is quantized on the CPU: load it there.");
  }

  Decoder& model_;
  const QuantizeOptions& options_;
  const quant::Method& method_;
  std::map<std::string, std::int64_t> places_;
  std::vector<QuantizedParameter> made_;
};

// The calibration text on its way through the blocks, a few rows at a time.
class Text {
 public:
  Text(const Decoder& model, const at::Tensor& ids) : model_(model) {
    const std::int64_t rows = std::max<std::int64_t>(1, kTokensAtOnce / ids.size(1));
    for (std::int64_t row = 0; row < ids.size(0); row += rows) {
      parts_.push_back(ids.narrow(0, row, std::min(rows, ids.size(0) - row)));
      nn::Pass pass = model.begin(parts_.back(), {});
      streams_.push_back(model.embed(parts_.back(), pass).x);
    }
  }

  // Only looks: the text stays before the block.
  void show(std::int64_t layer, nn::InputObserver& observer) const {
    for (std::size_t i = 0; i < streams_.size(); ++i) run(layer, i, &observer);
  }

  void pass_on(std::int64_t layer) {
    for (std::size_t i = 0; i < streams_.size(); ++i) streams_[i] = run(layer, i, nullptr);
  }

 private:
  at::Tensor run(std::int64_t layer, std::size_t part, nn::InputObserver* observer) const {
    nn::Pass pass = model_.begin(parts_[part], {});
    pass.observer = observer;
    nn::Stream stream = model_.run_block(layer, {streams_[part]}, pass);
    return stream.settle();
  }

  const Decoder& model_;
  std::vector<at::Tensor> parts_, streams_;  // ids; [rows, time, hidden]
};

}  // namespace

std::vector<QuantizedParameter> quantize(
    Decoder& model, const at::Tensor& ids, const QuantizeOptions& options,
    const std::function<void(std::int64_t, std::int64_t)>& progress) {
  const c10::NoGradGuard no_grad;
  Quantizer quantizer(model, options);
  std::optional<Text> text;
  if (quantizer.reads_text()) {
    require<ConfigError>(ids.defined(), "The method ", options.method,
                         " reads calibration text, but none was given.");
    model.check_ids(ids);
    text.emplace(model, ids);
  }
  const std::int64_t layers = model.config().num_hidden_layers;
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    progress(layer, layers);
    const std::string prefix = Quantizer::kLayers + std::to_string(layer) + ".";
    Moments moments;
    if (text) text->show(layer, moments);
    quantizer.scale(prefix, moments);
    quantizer.matrices_of(prefix, moments);
    if (text && layer + 1 < layers) text->pass_on(layer);
  }
  text.reset();
  Moments none;
  quantizer.matrices_of("", none);
  progress(layers, layers);
  return quantizer.take();
}

}  // namespace omnima::models
