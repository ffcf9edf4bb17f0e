"""What each kind of adapter learns in the same steps: a line of JSON a run, and one a kind.

python benchmarks/adapter_quality.py MODEL --data FILE... --steps 40 [--methods lora dora ...]

Every kind learns from the same packed rows in the same order, with the options that `omnima
finetune` has where they are left out: at the kind's own learning rate, at three times as much, and
so on as long as that is better, else at a third. What counts is the loss on the same held-out
samples after the last step. Nothing is saved.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

FACTOR = 3


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def opened(arguments: argparse.Namespace, method: str) -> Any:
    """The model with what learns of it."""
    import omnima
    from omnima.training.finetune_recipe import QLORA

    kind = "nf4" if method == QLORA else "float32"
    model = omnima.Model.from_pretrained(arguments.model, dtype=kind)
    if method != "full":
        model.add_adapter("lora" if method == QLORA else method, seed=arguments.seed)
    return model


def samples_of(arguments: argparse.Namespace) -> Any:
    import omnima

    tokenizer = omnima.Model.from_pretrained(arguments.model, dtype="auto").tokenizer
    data = omnima.data.open_conversations(
        arguments.data,
        tokenizer,
        arguments.context,
        on_error="skip",
        val_fraction=0.05,
        seed=arguments.seed,
    )
    data.samples["val"] = data.samples["val"][: arguments.held_out]
    return data


def held_out_loss(step: Any, data: Any, arguments: argparse.Namespace) -> float:
    rows = data.loader("val", arguments.rows, arguments.context, sequential=True)
    total, tokens = step.evaluate(rows, rows.batches_per_epoch)
    return float(total / tokens)


def run(
    arguments: argparse.Namespace, data: Any, method: str, rate: float | None
) -> dict[str, Any]:
    """Train at a learning rate, the kind's own where it is left out."""
    from omnima import _core
    from omnima.training.budget import Budget
    from omnima.training.finetune_recipe import FineTuneRecipe
    from omnima.training.stepper import step_options

    given = {"data": arguments.data, "method": method, "steps": arguments.steps, "lr": rate}
    config = FineTuneRecipe.from_layers({**given, "seed": arguments.seed}).train
    model = opened(arguments, method)
    budget = Budget.of(config, 1.0)
    options = step_options(config, arguments.precision, budget, model.core)
    step = _core.TrainStep(model.core, options)
    loader = data.loader("train", arguments.rows, arguments.context, seed=arguments.seed)
    found: dict[str, Any] = {"method": method, "lr": config.lr}
    if rate is None:
        found["before"] = held_out_loss(step, data, arguments)
    supervised = 0
    try:
        for _ in range(arguments.steps):
            supervised += int(step.run(loader).tokens)
    except ArithmeticError as error:  # a rate at which the loss is no number any more
        return {**found, "after": None, "why": str(error)[:120]}
    return {
        **found,
        "after": held_out_loss(step, data, arguments),
        "parameters": model.num_trainable_parameters,
        "supervised_tokens": supervised,
    }


def search(arguments: argparse.Namespace, data: Any, method: str) -> None:
    """The kind's own rate, three times as much, and so on as long as it gets better; else less."""
    own = run(arguments, data, method, None)
    say(**own)
    runs = [own]
    for factor in (FACTOR, 1 / FACTOR):
        for power in range(1, arguments.most + 1):
            runs.append(run(arguments, data, method, own["lr"] * factor**power))
            say(**runs[-1])
            if loss_of(runs[-1]) >= min(map(loss_of, runs[:-1])):
                break
        if min(runs, key=loss_of) is not own:
            break
    best = min(runs, key=loss_of)
    say(
        method=method,
        best_lr=best["lr"],
        best=best["after"],
        own_lr=own["lr"],
        own=own["after"],
        before=own["before"],
        parameters=best.get("parameters"),
    )


def loss_of(found: dict[str, Any]) -> float:
    return float("inf") if found["after"] is None else float(found["after"])


def main() -> None:
    from omnima.training.finetune_recipe import METHODS

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model")
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rows", type=int, default=2, help="in a batch")
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--held-out", type=int, default=60, help="samples that are measured")
    parser.add_argument("--most", type=int, default=3, help="rates above or below the kind's own")
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    data = samples_of(arguments)
    for method in arguments.methods:
        search(arguments, data, method)


if __name__ == "__main__":
    main()
