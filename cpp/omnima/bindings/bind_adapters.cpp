// omnima._core: the adapters of a Decoder.
#include <pybind11/stl.h>

#include "omnima/bindings/bindings.h"
#include "omnima/core/error.h"
#include "omnima/models/decoder.h"

namespace omnima::bindings {

using models::Decoder;
using nn::Adapter;
using nn::AdapterOptions;
using nn::Site;

namespace {

// A site as Python says it, before the model is asked where it lies.
struct Wanted {
  std::string name;
  std::vector<std::string> modules;
  std::int64_t rank = 0;
  double scale = 1.0;
  bool feeds_forward = false;
  std::vector<std::int64_t> order;
};

void add_adapter(Decoder& model, const std::string& name, const std::vector<Wanted>& sites,
                 const AdapterOptions& options) {
  std::vector<Site> found;
  for (const auto& each : sites) {
    Site site = nn::Adapters::find_site(model.arena(), each.name, each.modules);
    site.rank = each.rank;
    site.scale = each.scale;
    site.feeds_forward = each.feeds_forward;
    core::require<core::ConfigError>(each.order.empty() || std::ssize(each.order) == site.rows,
                                     "The order of \"", each.name, "\" names ", each.order.size(),
                                     " outputs, but there are ", site.rows, ".");
    site.order = each.order;
    found.push_back(std::move(site));
  }
  model.adapters().add(model.arena(), name,
                       nn::make_adapter(model.arena(), std::move(found), options));
}

std::vector<std::pair<std::string, at::Tensor>> parameters_of(const Decoder& model,
                                                              const std::string& name) {
  const nn::Arena& arena = model.adapters().get(name)->arena();
  std::vector<std::pair<std::string, at::Tensor>> all;
  for (std::size_t i = 0; i < arena.parameters().size(); ++i) {
    all.emplace_back(arena.parameters()[i].name, arena.leaf(static_cast<int64_t>(i)));
  }
  return all;
}

}  // namespace

void bind_adapters(py::module_& module, py::class_<Decoder, std::shared_ptr<Decoder>>& decoder) {
  const auto unlocked = py::call_guard<py::gil_scoped_release>();

  module.def("adapter_kinds", &nn::adapter_kinds, "What AdapterOptions.kind may be.");

  py::class_<Wanted>(module, "AdapterSite", "Where an adapter shall stand.")
      .def(py::init([](std::string name, std::vector<std::string> modules, std::int64_t rank,
                       double scale, bool feeds_forward, std::vector<std::int64_t> order) {
             return Wanted{std::move(name), std::move(modules), rank,
                           scale,           feeds_forward,      std::move(order)};
           }),
           py::arg("name"), py::arg("modules"), py::arg("rank") = 0, py::arg("scale") = 1.0,
           py::arg("feeds_forward") = false, py::arg("order") = std::vector<std::int64_t>{},
           "name: of its parameters. modules: of the model, which lie one behind the other in one "
           "layer. scale: by which what is added counts. order: where the model's files have each "
           "of its outputs; empty: where it lies here.");

  py::class_<nn::RankBudget>(module, "RankBudget", "AdaLoRA: how many numbers are left, and when.")
      .def(py::init([](std::int64_t rank, double initial_share, double final_share,
                       std::int64_t every, double orthogonality, double beta1, double beta2) {
             return nn::RankBudget{rank,          initial_share, final_share, every,
                                   orthogonality, beta1,         beta2};
           }),
           py::arg("rank") = 0, py::arg("initial_share") = 0.1, py::arg("final_share") = 0.3,
           py::arg("every") = 10, py::arg("orthogonality") = 0.5, py::arg("beta1") = 0.85,
           py::arg("beta2") = 0.85,
           "rank: of a layer in the end, on average. initial_share, final_share: of the steps, "
           "before and after the budget moves, every so many steps. orthogonality: weight of the "
           "penalty. beta1, beta2: what the means of importance and uncertainty keep.");

  py::class_<AdapterOptions>(module, "AdapterOptions", "What kind of adapter, and how it begins.")
      .def(py::init([](std::string kind, std::string init, double dropout, double up_rate,
                       std::uint64_t seed, std::int64_t virtual_tokens,
                       const nn::RankBudget& budget) {
             return AdapterOptions{std::move(kind), std::move(init), dropout, up_rate, seed,
                                   budget,          virtual_tokens};
           }),
           py::arg("kind") = "lora", py::arg("init") = "default", py::arg("dropout") = 0.0,
           py::arg("up_rate") = 1.0, py::arg("seed") = 0, py::arg("virtual_tokens") = 0,
           py::arg("budget") = nn::RankBudget{});

  py::class_<ops::AdaptedModel, std::shared_ptr<ops::AdaptedModel>>(
      module, "AdaptedModel", "What some adapters make of a model, for an Engine.");

  decoder
      .def("add_adapter", &add_adapter, py::arg("name"), py::arg("sites"), py::arg("options"),
           unlocked, "Makes an adapter, which alone is in use then and learns.")
      .def(
          "remove_adapter",
          [](Decoder& self, const std::string& name) {
            self.adapters().remove(self.arena(), name);
          },
          py::arg("name"), "The model itself learns again when the last one is gone.")
      .def(
          "use_adapters",
          [](Decoder& self, const std::map<std::string, double>& weights) {
            self.adapters().use(weights);
          },
          py::arg("weights"), "Uses exactly these, each as often as it counts.")
      .def_property_readonly(
          "adapters", [](const Decoder& self) { return self.adapters().names(); },
          "The names of all that there are.")
      .def_property_readonly(
          "adapters_in_use", [](const Decoder& self) { return self.adapters().used(); },
          "Names and how often each counts.")
      .def_property_readonly(
          "learning_adapter",
          [](const Decoder& self) -> std::optional<std::string> {
            if (self.adapters().learning() == nullptr) return std::nullopt;
            return self.adapters().used().begin()->first;
          },
          "The one whose parameters learn; None: none does.")
      .def_property_readonly(
          "adapters_merge", [](const Decoder& self) { return self.adapters().merge(); },
          "Whether all that those in use change can be merged into weights and biases.")
      .def(
          "adapted",
          [](const Decoder& self, const std::map<std::string, double>& weights) {
            return std::make_shared<ops::AdaptedModel>(
                self.adapters().beside(self.arena(), weights));
          },
          py::arg("weights"), unlocked,
          "What these adapters, each as often as it counts, make of the model.")
      .def("adapter_parameters", &parameters_of, py::arg("name"),
           "Pairs of name and float32 leaf tensor, each a view of the adapter's flat buffer.")
      .def(
          "adapter_constants",
          [](const Decoder& self, const std::string& name) {
            return self.adapters().get(name)->constants();
          },
          py::arg("name"), "What belongs to it but does not learn: pairs of name and tensor.")
      .def(
          "merged_parameters", [](Decoder& self) { return self.adapters().merged(self.arena()); },
          unlocked,
          "Names and new values of the parameters with the adapters in use merged into them, and "
          "of biases that the model has none of, where an adapter has.");
}

}  // namespace omnima::bindings
