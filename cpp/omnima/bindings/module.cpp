// The extension omnima._core: a list of the subjects that register themselves.
#include "omnima/bindings/bindings.h"

namespace omnima::bindings {

#define OMNIMA_SUBJECT(name) void bind_##name(py::module_& module)

OMNIMA_SUBJECT(data);
OMNIMA_SUBJECT(generate);
OMNIMA_SUBJECT(scheduler);
OMNIMA_SUBJECT(text);
OMNIMA_SUBJECT(model);
OMNIMA_SUBJECT(batch_source);
OMNIMA_SUBJECT(train);
OMNIMA_SUBJECT(layer_norms);
OMNIMA_SUBJECT(safetensors);
OMNIMA_SUBJECT(gguf);
OMNIMA_SUBJECT(quant);
OMNIMA_SUBJECT(profile);

PYBIND11_MODULE(_core, module) {
  module.doc() = "The C++ core of Omnima. Its public face is the package omnima.";
  module.attr("built_with_torch") = OMNIMA_TORCH_VERSION;
  register_errors();
  bind_text(module);
  bind_model(module);
  bind_batch_source(module);
  bind_data(module);
  bind_train(module);
  bind_layer_norms(module);
  bind_safetensors(module);
  bind_gguf(module);
  bind_quant(module);
  bind_profile(module);
  bind_generate(module);
  bind_scheduler(module);
}

}  // namespace omnima::bindings
