"""Runs in curves: as pictures, as arrays, and while they train."""

from __future__ import annotations

import io
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import omnima
from omnima.errors import OmnimaError
from omnima.notebook import LivePlot
from omnima.notebook.curves import history_arrays, plot_history, smooth
from omnima.notebook.live import spark
from omnima.training.run import Run

HISTORY = [
    {"step": n, "loss": 3.0 / n, "lr": 0.1, "tokens_per_s": 5.0, "val_loss": [None, 3.0][n == 4]}
    for n in (1, 2, 4)
]


def test_the_loss_curve_is_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "löss.png"
    figure = plot_history(HISTORY, 0.5, path)
    assert path.read_bytes()[:4] == b"\x89PNG"
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert labels == ["training loss", "held-out loss", "entropy floor 0.500"]
    assert [axes.get_title() for axes in figure.axes[1:]] == ["learning rate", "tokens a second"]
    drawn = figure.axes[1].get_lines()[0]
    assert list(drawn.get_xdata()) == [1, 2, 4] and list(drawn.get_ydata()) == [0.1] * 3


def test_a_short_history_has_one_picture() -> None:
    figure = plot_history([{"step": 1, "loss": 2.0}], None)
    assert len(figure.axes) == 1
    assert len(figure.axes[0].get_lines()) == 2  # no held-out loss, no floor


def test_a_notebook_shows_it_without_pyplot() -> None:
    assert plot_history(HISTORY, None)._repr_png_()[:4] == b"\x89PNG"  # type: ignore[attr-defined]


def test_without_matplotlib_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(OmnimaError, match="pip install"):
        plot_history([], None)


def test_the_same_numbers_are_arrays() -> None:
    arrays = Run(Path("run"), HISTORY, {}).arrays()
    assert list(arrays) == ["step", "loss", "lr", "tokens_per_s", "val_loss"]
    assert arrays["step"].dtype == np.int64 and arrays["loss"].tolist() == [3.0, 1.5, 0.75]
    assert np.isnan(arrays["val_loss"][:2]).all() and arrays["val_loss"][2] == 3.0
    assert history_arrays([]) == {}


def test_a_running_mean_of_equal_numbers_is_that_number() -> None:
    assert smooth([2.0, 2.0, 2.0]) == [2.0, 2.0, 2.0]


def test_bars_follow_the_numbers() -> None:
    assert spark([]) == "" and spark([float("nan")]) == ""
    assert spark([1.0, 1.0]) == "▁▁"
    assert spark([2.0, float("inf"), 1.0]) == "█?▁"
    row = spark([float(n) for n in range(1000)])
    assert len(row) == 40 and row[0] == "▁" and row[-1] == "█"


def fit(directory: Path, live: LivePlot, **changes: Any) -> Run:
    text = omnima.data.open_source("tinyworld:20KB")
    tokenizer = omnima.Tokenizer.train(text, "byte")
    model = omnima.Model.from_preset("nima", vocab_size=tokenizer.vocab_size)
    config = {"steps": 3, "batch_size": 2, "context": 32, "log_every": 1, "samples": 0}
    config |= {"out": str(directory), **changes}
    return omnima.Trainer(model, tokenizer, text, config, callbacks=[live]).fit()


def test_elsewhere_lines_are_written(tmp_path: Path) -> None:
    stream = io.StringIO()
    live = LivePlot(stream=stream)
    run = fit(tmp_path / "run", live)
    assert stream.getvalue().startswith("step 3/3  loss ") and "▁" in stream.getvalue()
    assert [each["step"] for each in live.history] == [1, 2, 3]
    assert [each["lr"] for each in live.history] == run.arrays()["lr"].tolist()


def test_a_run_that_ends_before_its_first_step_shows_nothing() -> None:
    stream = io.StringIO()
    live = LivePlot(stream=stream)
    live.on_log(None, None, None, logs={"lr": 0.1})  # before any step: of nothing
    live.on_exception(None, None, None)
    assert live.history == [] and stream.getvalue() == ""


class Shown:
    """What a notebook would have of it: a display that is updated in place."""

    def __init__(self) -> None:
        self.pictures: list[Any] = []
        self.displays = 0

    def display(self, picture: Any, display_id: bool) -> Any:
        assert display_id
        self.displays += 1
        self.pictures.append(picture)
        return types.SimpleNamespace(update=self.pictures.append)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Shown:
    made = Shown()
    shell = types.ModuleType("IPython")
    shell.get_ipython = lambda: types.SimpleNamespace(kernel=object())  # type: ignore[attr-defined]
    displays = types.ModuleType("IPython.display")
    displays.display = made.display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", shell)
    monkeypatch.setitem(sys.modules, "IPython.display", displays)
    return made


def test_a_notebook_has_one_figure_that_changes(tmp_path: Path, shown: Shown) -> None:
    run = fit(tmp_path / "run", LivePlot(share=1e9))
    assert shown.displays == 1 and len(shown.pictures) == 4  # one a step, and the whole run
    last = shown.pictures[-1].axes[0]
    assert list(last.get_lines()[0].get_xdata()) == [1, 2, 3]
    assert f"entropy floor {run.summary['entropy_floor']:.3f}" in [
        line.get_label() for line in last.get_lines()
    ]


def test_drawing_takes_a_small_share_of_the_time(tmp_path: Path, shown: Shown) -> None:
    fit(tmp_path / "run", LivePlot(share=1e-6), steps=5)
    assert len(shown.pictures) == 2  # the first step, and the whole run


def test_a_run_that_fails_is_drawn_as_far_as_it_came(tmp_path: Path, shown: Shown) -> None:
    class Fails(LivePlot):
        def on_step_end(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
            super().on_step_end(args, state, control, **facts)
            if state.global_step == 2:
                raise ValueError("enough")

    with pytest.raises(omnima.errors.CallbackError, match="enough"):
        fit(tmp_path / "run", Fails(share=1e-6))
    assert list(shown.pictures[-1].axes[0].get_lines()[0].get_xdata()) == [1, 2]


def test_a_python_with_ipython_but_no_kernel_gets_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = types.ModuleType("IPython")
    shell.get_ipython = lambda: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", shell)
    stream = io.StringIO()
    fit(tmp_path / "run", LivePlot(stream=stream), steps=1)
    assert stream.getvalue().startswith("step 1/1")
