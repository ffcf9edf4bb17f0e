// The optimizers by name: a new one is a line here.
#include "omnima/core/field.h"
#include "omnima/optim/adafactor.h"
#include "omnima/optim/adamw.h"
#include "omnima/optim/adamw_8bit.h"
#include "omnima/optim/lion.h"
#include "omnima/optim/muon.h"
#include "omnima/optim/optimizer.h"
#include "omnima/optim/schedule_free.h"
#include "omnima/optim/sgd.h"

namespace omnima::optim {
namespace {

struct Entry {
  const char* name;
  std::unique_ptr<Optimizer> (*make)(nn::Arena&, const OptimizerOptions&);
};

template <class T>
std::unique_ptr<Optimizer> make(nn::Arena& arena, const OptimizerOptions& options) {
  return std::make_unique<T>(arena, options);
}

constexpr Entry kOptimizers[] = {
    {"adamw", make<Adamw>},
    {"adamw_8bit", make<Adamw8bit>},
    {"schedule_free_adamw", make<ScheduleFreeAdamw>},
    {"lion", make<Lion>},
    {"muon", make<Muon>},
    {"adafactor", make<Adafactor>},
    {"sgd", make<Sgd>},
};

}  // namespace

void OptimizerOptions::check() const {
  core::check_field({"beta1", 0.9, "decay of the first moment", 0, 0.9999999}, beta1);
  core::check_field({"beta2", 0.95, "decay of the second moment", 0, 0.9999999}, beta2);
  core::check_field({"eps", 1e-8, "added to the root of the second moment", 1e-20, 1}, eps);
  core::check_field({"weight_decay", 0.1, "decay of matrices", 0, 10}, weight_decay);
  core::check_field({"momentum", 0.95, "decay of the mean gradient", 0, 0.9999999}, momentum);
}

std::vector<std::string> optimizer_names() {
  std::vector<std::string> names;
  for (const auto& entry : kOptimizers) names.emplace_back(entry.name);
  return names;
}

std::unique_ptr<Optimizer> make_optimizer(const std::string& name, nn::Arena& arena,
                                          const OptimizerOptions& options) {
  core::check_field(
      {"optimizer", std::string("adamw"), "how gradients move weights", 0, 0, optimizer_names()},
      name);
  for (const auto& entry : kOptimizers) {
    if (name == entry.name) return entry.make(arena, options);
  }
  return nullptr;
}

}  // namespace omnima::optim
