"""Short runs with random configurations from the whole schema: every one must finish with finite
numbers, or refuse with a clear message before its first step. Anything else is a bug.

    python benchmarks/random_runs.py --runs 200

A number draws the same configuration again: `--first 17 --runs 1` repeats run 17.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omnima.errors import NonFiniteError, OmnimaError
from omnima.training.display import Display
from omnima.training.launch import train
from omnima.training.recipe import Recipe
from omnima.training.schema import Field

CHANGED = 0.2  # chance that a field is not left at its default
REPAIRED = 0.92  # chance that keys which contradict each other are set right
RESUMED = 0.3  # chance that a run is stopped and resumed, and compared with the straight one
SLOW = 60.0  # seconds after which a run counts as hanging
Draw = Callable[[random.Random], Any]


def one_of(*values: Any) -> Draw:
    return lambda rng: rng.choice(values)


def whole(low: int, high: int) -> Draw:
    return lambda rng: rng.randint(low, high)


def real(low: float, high: float) -> Draw:
    return lambda rng: float(f"{math.exp(rng.uniform(math.log(low), math.log(high))):.4g}")


def some_of(*values: str, most: int = 2) -> Draw:
    return lambda rng: rng.sample(values, rng.randint(1, most))


# What the bounds of a field do not say: values that keep a run short, and text.
TRAINING: dict[str, Draw] = {
    "context": whole(2, 40),
    "batch_size": whole(1, 5),
    "accumulate": whole(1, 3),
    "checkpoint_layers": whole(0, 4),
    "target_batch_tokens": whole(1, 600),
    "memory_budget": one_of("1MB", "1GB", "1500MB", "1.5GiB", "2G"),
    "ramp_steps": whole(0, 4),
    "precision": one_of("auto", "fp32", "fp32", "bf16", "bf16", "fp16"),
    "subword_sampling": real(0.05, 5.0),
    "curriculum": one_of("length", "length", "length", "nothing"),
    "curriculum_steps": whole(1, 6),
    "lr": real(1e-5, 0.05),
    "warmup": whole(0, 8),
    "cycles": whole(1, 6),
    "stages": whole(1, 6),
    "weight_decay": real(1e-3, 2.0),
    "eps": real(1e-12, 1e-2),
    "groups": some_of(
        "*embed*:lr=0.5", "*norm*:weight_decay=0.2", "*mlp*:lr=2,weight_decay=0", "*:lr=0", "x:lr=1"
    ),
    "freeze": some_of("*norm*", "*embed*@1-2", "*layers.0*@2-5", "*", "nowhere"),
    "clip_norm": real(1e-3, 10),
    "clip_value": real(1e-4, 1),
    "clip_adaptive": real(1e-3, 1),
    "z_loss": real(1e-5, 1),
    "patience": whole(0, 3),
    "seed": whole(0, 1 << 62),
    "eval_every": whole(0, 4),
    "eval_batches": whole(1, 4),
    "save_every": whole(0, 4),
    "keep_last": whole(1, 3),
    "keep_best": whole(0, 2),
    "samples": whole(0, 3),
    "sample_tokens": whole(1, 50),
    "sample_prompt": one_of("", "The", "ü漢", "\n", "a " * 30),
    "log_every": whole(1, 5),
    "monitor_every": one_of(0.0, 0.001, 5.0),
    "norms_every": whole(0, 3),
    "samples_every": whole(0, 4),
    "alert_webhook": one_of("http://127.0.0.1:9/nobody"),
    "stall_after": real(0.1, 100),
    "track_project": one_of("omnima", "ein Projekt"),
    "track": lambda rng: rng.choice(([], [], [], ["tensorboard"])),
}
RECIPE: dict[str, Draw] = {
    "field": one_of("text", "nothing"),
    "document_break": one_of("dogs", r"\n\n", "("),
    "clean": one_of("duplicates", "duplicates", "duplicates", "prose", "code"),
    "tokenizer": one_of("bpe", "unigram", "char", "byte"),
    "vocab_size": whole(260, 330),
}
MODEL: dict[str, Draw] = {
    "hidden_size": one_of(8, 16, 24, 32, 48, 30),
    "intermediate_size": whole(1, 100),
    "num_hidden_layers": whole(1, 4),
    "num_experts": whole(2, 5),
    "num_attention_heads": one_of(1, 2, 3, 4),
    "num_key_value_heads": one_of(1, 2, 4),
    "head_dim": one_of(4, 4, 6, 8, 8, 16, 16, 7),
    "max_position_embeddings": whole(4, 64),
    "norm_eps": real(1e-8, 1e-3),
    "rope_theta": real(1.0, 1e6),
    "initializer_range": real(1e-4, 0.3),
    "embedding_dropout": one_of(-1.0, 0.0, 0.3),
    "rope_factor": real(1.0, 8.0),
    "rope_original_context": one_of(0, 4, 16),
    "rope_beta_fast": real(2.0, 64.0),
    "rope_beta_slow": real(0.1, 2.0),
    "rope_attention_factor": real(0.5, 2.0),
    "rope_low_freq_factor": real(0.5, 2.0),
    "rope_high_freq_factor": real(2.0, 8.0),
    "relative_buckets": whole(2, 40),
    "relative_max_distance": whole(2, 200),
    "sliding_window": whole(1, 24),
    "sliding_window_pattern": one_of(2, 3),
    "blocksparse_block_size": whole(1, 8),
    "blocksparse_num_local_blocks": whole(1, 3),
    "blocksparse_vert_stride": whole(2, 6),
    "dense_attention_every_n_layers": one_of(2, 3),
    "attention_softcap": real(0.1, 50.0),
    "logit_softcap": real(0.1, 50.0),
}
# Drawn together below: the budget, the size, the text and where the run goes.
TOGETHER = {"steps", "minutes", "epochs", "preset", "params", "model", "data", "out", "device"}
# Fields of the model that only go with another field's value.
NEEDS = {
    "rope_": ("rope_scaling", ("linear", "dynamic", "yarn", "llama3")),
    "rope_beta": ("rope_scaling", ("yarn",)),
    "rope_attention": ("rope_scaling", ("yarn",)),
    "rope_low": ("rope_scaling", ("llama3",)),
    "rope_high": ("rope_scaling", ("llama3",)),
    "relative_": ("positions", ("relative",)),
}


def by_description(field: Field) -> Draw:
    """Draw a field from its choices or bounds alone."""
    if field.kind is bool:
        return one_of(True, False)
    if field.choices and field.kind is tuple:
        return some_of(*field.choices)
    if field.choices:
        return one_of(*field.choices)
    if field.minimum is None or field.maximum is None:
        return one_of(field.default)  # free text: TRAINING and RECIPE say what else it may be
    low, high = float(field.minimum), float(field.maximum)
    if field.kind is int:
        return whole(int(low), int(min(high, low + 8)))
    return lambda rng: round(rng.uniform(low, high), 4)


def draws() -> dict[str, Draw]:
    """How each key of a recipe is drawn; a new key of the schema is taken in by itself."""
    own = {**TRAINING, **RECIPE}
    return {
        name: own.get(name) or by_description(field)
        for name, field in Recipe.schema().items()
        if name not in TOGETHER
    }


def model_draws() -> dict[str, Draw]:
    """How each field of a model is drawn."""
    from omnima.config import ModelConfig

    found: dict[str, Draw] = {}
    for each in dataclasses.fields(ModelConfig):
        if each.name == "vocab_size":
            continue  # the tokenizer's
        kind = type(each.default)
        field = Field(each.name, kind, each.default, identity=True, **dict(each.metadata))
        found[each.name] = MODEL.get(each.name) or by_description(field)
    return found


def random_model(rng: random.Random) -> dict[str, Any]:
    shape = ("hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings")
    known = model_draws()
    # Most heads divide most widths; the others are refused, which must be said clearly, too.
    model = {name: known[name](rng) for name in shape}
    if rng.random() < 0.9:
        model["hidden_size"] = model["num_attention_heads"] * rng.choice((4, 8, 16))
    for name, draw in known.items():
        if name not in shape and rng.random() < CHANGED:
            model[name] = draw(rng)
    if rng.random() < REPAIRED:
        for prefix, (other, values) in NEEDS.items():
            if model.get(other) not in values:
                dropped = [
                    n for n in model if n.startswith(prefix) and n not in (other, "rope_theta")
                ]
                for name in dropped:
                    del model[name]
        if model.get("positions", "rotary") != "rotary":
            model.pop("rope_scaling", None)
            dropped = [name for name in model if name.startswith("rope_") and name != "rope_theta"]
            for name in dropped:
                del model[name]
        if not model.get("sliding_window"):
            model.pop("sliding_window_pattern", None)
        _repair_blocks(model)
        if model["num_hidden_layers"] == 1:
            model.pop("layer_drop", None)
        if model.get("sliding_window", 0) >= model["max_position_embeddings"]:
            model["sliding_window"] = model["max_position_embeddings"] - 1
        if model.get("rope_original_context", 0) > model["max_position_embeddings"]:
            del model["rope_original_context"]
        _repair_experts(model)
        if model["num_attention_heads"] % model.get("num_key_value_heads", 1):
            del model["num_key_value_heads"]
    return model


def _repair_blocks(model: dict[str, Any]) -> None:
    size, context = model.get("blocksparse_block_size", 0), model["max_position_embeddings"]
    if size and not model.get("sliding_window") and model.get("causal", True) and context > 8:
        model.update(blocksparse_block_size=min(size, context // 8))
        model.update(blocksparse_num_local_blocks=2, blocksparse_vert_stride=3)
        return
    for name in [name for name in model if name.startswith(("blocksparse_", "dense_attention_"))]:
        del model[name]


def _repair_experts(model: dict[str, Any]) -> None:
    if model.get("num_experts", 0) > 1:
        model["num_experts_per_tok"] = min(2, model["num_experts"])
        model.pop("mlp_bias", None)
        for name in ("expert_capacity", "decoder_sparse_step"):
            model.pop(name, None)
        return
    known = ("expert", "moe_", "router_", "norm_topk", "decoder_sparse")
    for name in [name for name in model if any(part in name for part in known)]:
        del model[name]


def random_data(rng: random.Random, place: Path) -> dict[str, Any]:
    """Write a small text in one of the formats; return the keys that name it."""
    stories = [
        f"The {rng.randint(0, 9)} cats saw {rng.randint(0, 9)} dogs. " * rng.randint(1, 4)
        for _ in range(rng.choice((3, 60, 300)))
    ]
    kind = rng.choice(("text", "tinyworld", "jsonl", "csv", "mixture", "two"))
    if kind == "tinyworld":
        return {"data": [f"tinyworld:{rng.choice((2, 8, 30))}KB"]}
    plain = place / "story.txt"
    plain.write_text("\n\n".join(stories), encoding="utf-8")
    if kind == "text":
        return {"data": [str(plain)]}
    if kind == "two":
        return {"data": [str(plain), "tinyworld:4KB"]}
    if kind == "jsonl":
        lines = [json.dumps({"text": story}) for story in stories]
        broken = rng.random() < 0.3
        if broken:
            lines.insert(1, "{broken")
        path = place / "story.jsonl"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return {
            "data": [str(path)],
            "on_error": rng.choice(("skip", "skip", "raise")) if broken else "raise",
        }
    if kind == "csv":
        path = place / "story.csv"
        path.write_text("text\n" + "".join(f'"{story}"\n' for story in stories), encoding="utf-8")
        return {"data": [str(path)], "field": "text"}
    parts = [{"data": str(plain), "weight": 2}, {"data": "tinyworld:8KB", "weight": 1}]
    if rng.random() < 0.5:
        parts[0]["language"], parts[1]["language"] = "en", "fr"
    if rng.random() < 0.5:
        parts[0]["fill_in_middle"] = 0.5
    if rng.random() < 0.3:
        parts[1]["shuffle_sentences"] = 0.5
    path = place / "mixture.yaml"
    path.write_text(json.dumps({"sources": parts}), encoding="utf-8")  # JSON is YAML
    return {"data": [str(path)]}


def random_values(number: int, place: Path) -> dict[str, Any]:
    """Draw the keys of run `number`; its text is written into a directory."""
    rng = random.Random(number)
    values = {name: draw(rng) for name, draw in draws().items() if rng.random() < CHANGED}
    values.update(random_data(rng, place))
    values["model"] = random_model(rng)
    budget = rng.choice(("steps", "steps", "steps", "epochs", "minutes"))
    draw = {"steps": whole(1, 8), "epochs": real(0.01, 0.3), "minutes": real(0.001, 0.008)}[budget]
    values[budget] = draw(rng)
    values.setdefault("tokenizer", rng.choice(("byte", "byte", "bpe", "char")))
    values.setdefault("samples", 1)
    if rng.random() < REPAIRED:
        _repair(values, budget)
    return values


def _repair(values: dict[str, Any], budget: str) -> None:
    """Set right what is known to be refused, so that most runs train."""
    if values.get("optimizer") == "schedule_free_adamw":
        values.update(schedule="constant", ema_decay=0.0)
    if "target_batch_tokens" in values:
        values.pop("batch_size", None)
        values.pop("accumulate", None)
    if values.get("context", 0) > values["model"]["max_position_embeddings"]:
        del values["context"]
    if values.get("schedule") == "one_cycle" or values.get("warmup", 0) > values.get("steps", 99):
        values.pop("warmup", None)
    if values.get("accumulate", 1) == 1 or budget == "epochs":
        values.pop("ramp_steps", None)
    if "curriculum" not in values:
        for name in [name for name in values if name.startswith("curriculum_")]:
            del values[name]
    if values.get("curriculum_steps", 0) > values.get("steps", 99):
        del values["curriculum_steps"]
    if "curriculum" in values and budget == "minutes":
        values.setdefault("curriculum_steps", 2)
    if "off" in values.get("alerts", ()):
        values["alerts"] = ["off"]
    if values["data"][0].endswith(".yaml"):
        values.pop("clean", None)
    if values["tokenizer"] in ("byte", "char"):
        values.pop("vocab_size", None)
    for name, kind in (("bpe_dropout", "bpe"), ("subword_sampling", "unigram")):
        if values["tokenizer"] != kind or values.get("objective", "next_token") != "next_token":
            values.pop(name, None)


def read(values: dict[str, Any], way: str, place: Path) -> Recipe:
    """Read the same keys from Python, from YAML or as `--set` pairs."""
    if way == "yaml":
        path = place / "recipe.yaml"
        path.write_text(json.dumps(values), encoding="utf-8")
        return Recipe.from_layers({}, [], path)
    if way == "set":
        simple = {
            name: value
            for name, value in values.items()
            if isinstance(value, (int, float, str)) and value != ""
        }
        others = {name: value for name, value in values.items() if name not in simple}
        pairs = [f"{name}={value}" for name, value in simple.items()]
        pairs += [f"model.{name}={value}" for name, value in others.pop("model").items()]
        return Recipe.from_layers(others, pairs)
    return Recipe.from_layers(values)


class Watcher:
    """Counts steps, and asks for evaluations, records and checkpoints at random."""

    def __init__(self, number: int) -> None:
        self.steps, self._number = 0, number

    def on_step_end(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        self.steps += 1
        rng = random.Random((self._number << 20) + state.global_step)
        control.should_evaluate = rng.random() < 0.1
        control.should_log = rng.random() < 0.1
        control.should_save = rng.random() < 0.1


def not_finite(run: Any) -> str | None:
    """Name the first number of a finished run that is not finite, its weights included."""
    from omnima.hub import load_pretrained

    told = {
        f"summary {key}": value for key, value in run.summary.items() if isinstance(value, float)
    }
    for record in run.history:
        for key in ("loss", "val_loss", "grad_norm", "lr"):
            overflow = key == "grad_norm" and record.get("skipped")  # fp16: it was said
            if record.get(key) is not None and not overflow:
                told[f"{key} of step {record['step']}"] = record[key]
    for name, weight in load_pretrained(run.path)[1].items():
        told[f"a sum of {name}"] = float(weight.abs().sum())
    return next((name for name, value in told.items() if not math.isfinite(value)), None)


def one_run(number: int) -> dict[str, Any]:
    """Draw and train run `number`; say how it ended."""
    rng = random.Random(-number - 1)
    way, again = rng.choice(("python", "yaml", "set")), rng.random() < RESUMED
    watcher = Watcher(number)
    started = time.perf_counter()
    said = io.StringIO()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        values = random_values(number, place)
        try:
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
                found, what = _trained(values, way, again, place, watcher)
        except NonFiniteError as error:
            found, what = "diverged", str(error)
        except OmnimaError as error:
            found, what = (
                ("bug" if watcher.steps else "refused"),
                f"{type(error).__name__}: {error}",
            )
        except Exception:
            found, what = "bug", traceback.format_exc()
    seconds = round(time.perf_counter() - started, 2)
    if seconds > SLOW:
        found, what = "bug", f"took {seconds} seconds; {what}"
    told = {"run": number, "how": found, "what": what, "way": way, "seconds": seconds}
    return told if found in ("finished", "resumed") else {**told, "values": values}


def _trained(
    values: dict[str, Any], way: str, again: bool, place: Path, watcher: Watcher
) -> tuple[str, str]:
    display = Display(silent=True)
    recipe = read({**values, "out": str(place / "run")}, way, place)
    run = train(recipe, display=display, callbacks=[watcher])
    wrong = not_finite(run)
    if wrong is not None:
        return "bug", f"{wrong} is not finite, and nobody said so"
    steps = int(run.summary["steps"])
    if not again or steps < 2 or "minutes" in values:
        return "finished", f"{steps} steps, loss {run.summary['train_loss']:.3f}"
    # A choice that is measured would make two runs differ for that alone.
    precision = json.loads((run.path / "precision.json").read_text())["precision"]
    half = read({**values, "precision": precision, "out": str(place / "half")}, way, place)
    train(half, display=display, callbacks=[Watcher(watcher._number)], stop_after=steps // 2)
    resumed = train(half, display=display, callbacks=[Watcher(watcher._number)], resume=True)
    same = all(
        (run.path / name).read_bytes() == (resumed.path / name).read_bytes()
        for name in ("model.safetensors", "config.json")
    )
    if not same:
        return "bug", f"resumed after {steps // 2} of {steps} steps, the weights differ"
    return "resumed", f"{steps} steps, stopped after {steps // 2} and resumed with the same bytes"


def in_other_processes(first: int, runs: int, share: int) -> list[dict[str, Any]]:
    """Run all in processes that may die: the run after the last one told is then the culprit."""
    results: list[dict[str, Any]] = []
    surroundings = {**os.environ, "WANDB_MODE": "offline"}
    while len(results) < runs:
        start = first + len(results)
        count = min(share, runs - len(results))
        command = [sys.executable, __file__, "--first", str(start), "--runs", str(count), "--here"]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=False, env=surroundings
        )
        told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        results += told
        if len(told) < count:
            died = f"the process died with {done.returncode}"
            results.append({"run": start + len(told), "how": "bug", "what": died})
        print(f"{len(results)} of {runs}", file=sys.stderr)
    return results


def main() -> int:
    """Do the runs; print how many ended how, and every bug."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--share", type=int, default=25, help="runs in one process")
    parser.add_argument("--here", action="store_true", help="in this process, a JSON line a run")
    parser.add_argument("--out", type=Path, help="write all results into a JSON file")
    options = parser.parse_args()
    if options.here:
        for number in range(options.first, options.first + options.runs):
            print(json.dumps(one_run(number)), flush=True)
        return 0
    results = in_other_processes(options.first, options.runs, options.share)
    if options.out:
        options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    bugs = [each for each in results if each["how"] == "bug"]
    for each in bugs:
        print(json.dumps(each), file=sys.stderr)
    print(json.dumps({"name": "random runs", **Counter(each["how"] for each in results)}))
    return 1 if bugs else 0


if __name__ == "__main__":
    sys.exit(main())
