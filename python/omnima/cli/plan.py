"""`omnima plan`: what a run will need and take, before it starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omnima.cli.output import print_facts, print_json, print_result, print_table
from omnima.cli.train import own_flag, take_flags

if TYPE_CHECKING:
    from omnima.planning import Plan


def plan(**flags: Any) -> None:
    """Predict memory, speed, duration and cost of a training run, here or on another machine."""
    from omnima.training import foresight

    own = {name: flags.pop(name) for name in _OWN}
    if own["from_runs"]:
        said = foresight.forecast(own["from_runs"], flags, own["set"] or (), own["config"])
        print_result(said, own["json"])
        return
    recipe = foresight.recipe_to_plan(flags, own["set"] or (), own["config"])
    job, here, target = foresight.ask(recipe, own["machine"])
    if own["what_fits"]:
        from omnima.planning import what_fits

        rows = what_fits(job, target or here)
        print_json({"machine": (target or here).name, "rows": rows}) if own["json"] else _show(rows)
        return
    from omnima.planning import largest_context, largest_rows
    from omnima.planning import plan as predict

    found = predict(job, target, here=here)
    if own["json"]:
        print_json(found.as_dict())
        return
    print_facts(_facts(found))
    print_facts(
        {
            "largest batch": largest_rows(job, found.machine),
            "largest context": largest_context(job, found.machine),
        }
    )


def _facts(found: Plan) -> dict[str, Any]:
    from omnima.training.display import format_bytes, format_seconds

    return {
        "machine": found.machine.name,
        "parameters": found.parameters,
        **_active(found),
        "parameters by part": {k: v for k, v in found.parameters_by_part.items() if v},
        "memory": format_bytes(found.memory_bytes),
        "memory by part": {
            part.replace("_", " "): format_bytes(size)
            for part, size in found.memory_by_part.items()
            if size
        },
        **_offloaded(found),
        "memory there": format_bytes(found.machine.memory_bytes),
        "fits": found.fits,
        "operations a token": found.flops_per_token,
        "a step": f"{1e3 * found.step_seconds:,.1f} ms",
        "tokens a second": found.tokens_per_s,
        "steps": found.steps,
        "tokens": found.tokens,
        "duration": format_seconds(found.seconds),
        "cost": found.cost,
    }


def _offloaded(found: Plan) -> dict[str, str]:
    """What lies elsewhere than in the memory that is planned."""
    from omnima.training.display import format_bytes

    if found.offloaded_to is None:
        return {}
    where = "the machine's memory" if found.offloaded_to == "cpu" else found.offloaded_to
    return {"optimizer offloaded": f"{format_bytes(found.offloaded_bytes)} to {where}"}


def _active(found: Plan) -> dict[str, int]:
    """With experts: the parameters that a token meets."""
    few = found.active_parameters < found.parameters
    return {"active parameters": found.active_parameters} if few else {}


def _show(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    from omnima.training.display import format_bytes

    table = Table(title="what fits", title_justify="left")
    for heading in rows[0]:
        table.add_column(
            heading.replace("_", " "), justify="left" if heading == "preset" else "right"
        )
    for row in rows:
        told = {
            **row,
            "memory_bytes": format_bytes(row["memory_bytes"]),
            "fits": "yes" if row["fits"] else "no",
        }
        table.add_row(*(f"{v:,}" if isinstance(v, int) else str(v) for v in told.values()))
    print_table(table)


_OWN_PARAMETERS = [
    own_flag("config", str | None, None, "a YAML recipe or a run's directory; flags override it"),
    own_flag("set", list[str] | None, None, "any recipe key or model field, as key=value"),
    own_flag("machine", str | None, None, "another machine's YAML file, see examples/machines"),
    own_flag("what_fits", bool, False, "which presets, precisions, contexts and batches fit"),
    own_flag("from_runs", list[str] | None, None, "finished runs: predict a larger one's loss"),
    own_flag("json", bool, False, "print the result as one JSON object"),
]
_OWN = [each.name for each in _OWN_PARAMETERS]
take_flags(plan, _OWN_PARAMETERS)
