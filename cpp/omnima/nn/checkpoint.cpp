#include "omnima/nn/checkpoint.h"

#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "omnima/core/error.h"
#include "omnima/core/scope.h"
#include "omnima/ops/saved.h"

namespace omnima::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Which parts of a stream there are.
struct Kinds {
  bool change = false, losses = false;
};

struct Again {
  Stage stage;
  Pass pass;  // as it was before the stage
  Kinds kinds;
};

Kinds kinds_of(const Stream& stream) { return {stream.change.defined(), stream.losses.defined()}; }

Stream stream_of(const variable_list& parts, const Kinds& kinds) {
  Stream stream{parts[0]};
  if (kinds.change) stream.change = parts[1];
  if (kinds.losses) stream.losses = parts.back();
  return stream;
}

variable_list parts_of(const Stream& stream) {
  variable_list parts{stream.x};
  if (stream.change.defined()) parts.push_back(stream.change);
  if (stream.losses.defined()) parts.push_back(stream.losses);
  return parts;
}

struct CheckpointFunction : torch::autograd::Function<CheckpointFunction> {
  static variable_list forward(AutogradContext* context, at::TensorList input, const Again& again,
                               Pass* pass, Kinds* made) {
    const variable_list parts = input.vec();
    context->save_for_backward(parts);
    context->set_materialize_grads(false);
    ops::keep(context, again);
    const Stream stream = again.stage(stream_of(parts, again.kinds), *pass);
    *made = kinds_of(stream);
    return parts_of(stream);
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    variable_list input;
    for (const auto& part : context->get_saved_variables()) {
      input.push_back(part.detach().set_requires_grad(true));
    }
    Again again = ops::kept<Again>(context);
    variable_list output, given;
    {
      const core::Scope scope("checkpoint.backward");
      const c10::AutoGradMode recording(true);
      const variable_list made = parts_of(again.stage(stream_of(input, again.kinds), again.pass));
      for (std::size_t i = 0; i < made.size(); ++i) {
        if (!grads[i].defined()) continue;
        output.push_back(made[i]);
        given.push_back(grads[i]);
      }
    }
    torch::autograd::backward(output, given);
    variable_list result;
    for (const auto& part : input) result.push_back(part.grad());
    result.emplace_back();  // again
    result.emplace_back();  // pass
    result.emplace_back();  // made
    return result;
  }
};

}  // namespace

Stream checkpointed(const Stage& stage, const Stream& input, Pass& pass) {
  core::require(pass.compute.direct_gradients,
                "Checkpointing is for training steps: gradients through autograd would be lost.");
  variable_list parts = parts_of(input);
  const bool learns = std::any_of(parts.begin(), parts.end(),
                                  [](const at::Tensor& part) { return part.requires_grad(); });
  // With all frozen before the stage autograd would not come back to what learns inside it.
  if (!learns) parts[0] = parts[0].detach().set_requires_grad(true);
  Kinds made;
  const variable_list output = CheckpointFunction::apply(
      at::TensorList(parts), Again{stage, pass, kinds_of(input)}, &pass, &made);
  return stream_of(output, made);
}

}  // namespace omnima::nn
