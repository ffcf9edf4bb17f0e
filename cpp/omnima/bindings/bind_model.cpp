// omnima._core: field descriptions, DecoderConfig and Decoder.
#include <pybind11/stl.h>

#include "omnima/bindings/bindings.h"
#include "omnima/models/decoder.h"
#include "omnima/models/quantize.h"
#include "omnima/ops/device_ops.h"

namespace omnima::bindings {

using models::Decoder;
using models::DecoderConfig;

// In bind_adapters.cpp.
void bind_adapters(py::module_& module, py::class_<Decoder, std::shared_ptr<Decoder>>& decoder);

namespace {

using Described = std::tuple<std::string, std::string, at::Tensor>;

std::vector<Described> quantize(Decoder& model, const std::optional<at::Tensor>& ids,
                                const std::string& method,
                                const std::map<std::string, std::string>& formats,
                                const py::object& progress) {
  std::vector<models::QuantizedParameter> made;
  {
    const py::gil_scoped_release release;
    made = models::quantize(model, ids.value_or(at::Tensor()), {method, formats},
                            [&](std::int64_t done, std::int64_t of) {
                              const py::gil_scoped_acquire lock;
                              if (PyErr_CheckSignals() != 0) throw py::error_already_set();
                              if (!progress.is_none()) progress(done, of);
                            });
  }
  std::vector<Described> all;
  for (auto& each : made) all.emplace_back(each.name, each.format, each.blocks);
  return all;
}

}  // namespace

void bind_model(py::module_& module) {
  const auto unlocked = py::call_guard<py::gil_scoped_release>();

  py::class_<core::Field>(module, "Field", "Description of one configuration field.")
      .def_readonly("name", &core::Field::name)
      .def_readonly("default", &core::Field::default_value)
      .def_readonly("meaning", &core::Field::meaning)
      .def_readonly("minimum", &core::Field::minimum)
      .def_readonly("maximum", &core::Field::maximum)
      .def_readonly("choices", &core::Field::choices);
  module.def("has_gpu_kernels", &ops::has_device_ops,
             "Whether this build has kernels of its own for GPUs.");
  module.def("nearest_name", &core::nearest_name, py::arg("name"), py::arg("names"),
             "The one of `names` nearest to `name` by edit distance.");

  py::class_<DecoderConfig>(module, "DecoderConfig", "Checked shape of a decoder.")
      .def(py::init(&DecoderConfig::from_values), py::arg("values"),
           "From field names to values; unknown names and values out of bounds raise ConfigError.")
      .def("values", &DecoderConfig::values, "All fields by name.")
      .def("seen_pairs", &DecoderConfig::seen_pairs, py::arg("time"),
           "Pairs of a query and a key that it sees in a row of `time` tokens, of all layers and "
           "heads.")
      .def_static("fields", &DecoderConfig::fields, "Descriptions of all fields.");

  py::class_<Decoder, std::shared_ptr<Decoder>> decoder(module, "Decoder",
                                                        "A decoder-only language model.");
  decoder
      .def(
          py::init<const DecoderConfig&, std::optional<std::uint64_t>, const std::string&,
                   const std::map<std::string, std::string>&>(),
          py::arg("config"), py::arg("seed") = 0, py::arg("device") = "cpu",
          py::arg("held") = std::map<std::string, std::string>{}, unlocked,
          "Weights are drawn from the seed; with None they hold anything, to be overwritten. held: "
          "matrices by name that are held in blocks of a format, which `hold` brings; they do not "
          "learn.")
      .def("hold", &Decoder::hold, py::arg("name"), py::arg("blocks"),
           "The blocks of such a matrix, uint8 [outputs, bytes of a row], whose memory it shares.")
      .def_property_readonly(
          "held",
          [](const Decoder& self) {
            std::vector<Described> all;
            for (auto& each : self.held()) all.emplace_back(each.name, each.format, each.blocks);
            return all;
          },
          "Triples of name, format and blocks of the matrices that are held so.")
      .def_property_readonly("config", &Decoder::config)
      .def("num_parameters", &Decoder::num_parameters,
           "Number of parameters; tied ones count once.")
      .def("named_parameters", &Decoder::named_parameters,
           "Pairs of name and float32 leaf tensor, each a view of the one flat buffer; but for "
           "matrices that are held in blocks.")
      .def(
          "logits", [](Decoder& self, const at::Tensor& ids) { return self.logits(ids); },
          py::arg("ids"), unlocked,
          "ids int64 [batch, time] -> logits float32 [batch, time, vocab].")
      .def("attention", &Decoder::attention, py::arg("ids"), unlocked,
           "ids int64 [batch, time] -> what tokens take from which, float32 [layers, batch, heads, "
           "time, time]. Virtual tokens of an adapter in use stand in front.")
      .def(
          "rewards", [](Decoder& self, const at::Tensor& ids) { return self.rewards(ids); },
          py::arg("ids"), unlocked,
          "With a reward head: ids int64 [batch, time] -> rewards float32 [batch, time], of a text "
          "that ends at each token.")
      .def(
          "loss",
          [](Decoder& self, const at::Tensor& ids, const at::Tensor& labels,
             const std::optional<at::Tensor>& segments, bool as_trained) {
            return self.loss(ids, labels, segments.value_or(at::Tensor()), as_trained);
          },
          py::arg("ids"), py::arg("labels"), py::arg("segments") = py::none(),
          py::arg("as_trained") = false, unlocked,
          "Mean cross-entropy in nats; labels [batch, time] already shifted, -100 is ignored. "
          "as_trained: as a training step has it, with routers' losses and dropout (of seed 0).")
      .def(
          "prediction_losses",
          [](Decoder& self, const at::Tensor& ids, const at::Tensor& labels,
             const std::optional<at::Tensor>& segments) {
            return self.prediction_losses(ids, labels, segments.value_or(at::Tensor()));
          },
          py::arg("ids"), py::arg("labels"), py::arg("segments") = py::none(), unlocked,
          "The mean loss of each prediction head over the tokens that it predicts, in nats.")
      .def("quantize", &quantize, py::arg("ids"), py::arg("method"), py::arg("formats"),
           py::arg("progress") = py::none(),
           "Quantizes the parameters that `formats` names (rtn, gptq or awq; the last two read "
           "calibration ids int64 [rows, time]), which then hold the numbers of their blocks. "
           "Triples of name, format and blocks, uint8 [outputs, bytes of a row].");
  bind_adapters(module, decoder);
}

}  // namespace omnima::bindings
