// omnima._core: LayerNorms, which measures a step layer by layer.
#include <pybind11/stl.h>

#include "omnima/bindings/bindings.h"
#include "omnima/train/layer_norms.h"

namespace omnima::bindings {

using train::LayerNorm;
using train::LayerNorms;

void bind_layer_norms(py::module_& module) {
  const auto unlocked = py::call_guard<py::gil_scoped_release>();
  py::class_<LayerNorm>(module, "LayerNorm", "The 2-norms of one layer in one step.")
      .def_readonly("layer", &LayerNorm::layer, "Such as layers.0, embed_tokens or norm.")
      .def_readonly("gradient", &LayerNorm::gradient, "Before clipping.")
      .def_readonly("weight", &LayerNorm::weight, "After the step.")
      .def_readonly("update", &LayerNorm::update, "Weights after the step minus those before it.");
  py::class_<LayerNorms>(module, "LayerNorms",
                         "Measures one step layer by layer: before(), the step, after().")
      .def(py::init<std::shared_ptr<models::Decoder>>(), py::arg("decoder"), unlocked)
      .def("before", &LayerNorms::before, unlocked, "Keep a copy of the weights.")
      .def("after", &LayerNorms::after, unlocked,
           "Norms of every layer, in order of declaration; drops the copy.");
}

}  // namespace omnima::bindings
