// Compiled where OMNIMA_CUDA is off: text is written on the CPU alone.
#include "omnima/core/error.h"
#include "omnima/generate/model_runner.h"

namespace omnima::generate {

std::string why_not_on_device(const models::DecoderConfig&) {
  return "this omnima was built without CUDA (docs/explanation/gpu.md says how to build it with)";
}

std::unique_ptr<RunnableModel> make_device_model(const models::DecoderConfig& config,
                                                 const Weights&, const at::Device& device) {
  if (device.is_cpu()) return nullptr;
  throw core::ConfigError(core::message("Text cannot be written on ", device.str(), ": ",
                                        why_not_on_device(config), ". Write on the CPU."));
}

}  // namespace omnima::generate
