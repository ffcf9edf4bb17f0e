"""Alerts: what losses show, stalls, and where alerts go."""

from __future__ import annotations

import http.server
import json
import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from omnima.errors import ConfigError, NonFiniteError
from omnima.training.callbacks import Callback
from omnima.training.callbacks.alerts import Alert, LossAlerts
from omnima.training.callbacks.stall import StallWatch
from omnima.training.callbacks.webhook import Webhook
from omnima.training.display import Display
from omnima.training.launch import train
from omnima.training.recipe import Recipe
from omnima.training.records import read_records

ALL = ("spike", "divergence", "plateau")
Make = Callable[..., Recipe]


def falling(count: int, noise: float, seed: int = 1) -> list[float]:
    dice = random.Random(seed)
    return [2 + 4 * math.exp(-n / 150) + dice.gauss(0, noise) for n in range(count)]


def told(losses: list[float], kinds: tuple[str, ...] = ALL) -> list[Alert]:
    alerts = LossAlerts(kinds)
    return [alert for step, loss in enumerate(losses) for alert in alerts.step(step, loss)]


# --- losses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_an_ordinary_run_is_left_in_peace(seed: int) -> None:
    assert told(falling(900, 0.12, seed)) == []


def test_a_jump_is_a_spike_told_once() -> None:
    losses = falling(400, 0.05)
    losses[300] = losses[301] = 6.0
    (found,) = told(losses)
    assert (found.kind, found.step) == ("spike", 300)
    assert found.values["loss"] == 6.0 and 2 < found.values["median"] < 3
    assert "6.000 at step 300" in found.message


def test_no_spike_before_there_is_a_usual_loss() -> None:
    assert told([5.0, 5.0, 50.0, 5.0], ("spike",)) == []


def test_a_loss_that_climbs_diverges_once_and_again_after_it_fell() -> None:
    losses = falling(400, 0.02) + [2.3 + 0.02 * n for n in range(150)]
    losses += [2.0] * 200 + [2.0 + 0.02 * n for n in range(150)]
    found = [each for each in told(losses) if each.kind == "divergence"]
    assert len(found) == 2
    assert 400 < found[0].step < 520 and found[0].values["mean"] > found[0].values["lowest"]


def test_a_loss_that_stays_is_a_plateau() -> None:
    (found,) = told([3.0] * 2500)
    assert found.kind == "plateau" and 1000 <= found.step < 1100
    assert "1000 steps" in found.message


def test_evaluations_decide_where_there_are_some() -> None:
    alerts = LossAlerts(ALL)
    losses = [3.0, 2.5, 2.499, 2.4985, 2.4982, 2.4981, 2.498, 2.3, 2.3]
    found = [a for step, loss in enumerate(losses) for a in alerts.evaluation(step, loss)]
    assert [(each.kind, each.step) for each in found] == [("plateau", 5)]
    assert "4 evaluations" in found[0].message
    assert [a for step in range(10, 2010) for a in alerts.step(step, 3.0)] == []


@pytest.mark.parametrize("kind", ALL)
def test_only_what_is_wanted_is_told(kind: str) -> None:
    losses = [3.0] * 200 + [8.0] + [3.0] * 1200 + [3.0 + n * 0.02 for n in range(200)]
    assert {each.kind for each in told(losses, (kind,))} == {kind}


def test_what_was_seen_travels_as_json() -> None:
    losses = falling(600, 0.1)
    losses[350] = 9.0
    straight = LossAlerts(ALL)
    expected = [alert for step, loss in enumerate(losses) for alert in straight.step(step, loss)]
    assert len(expected) == 1
    for cut in (0, 10, 200, 340):
        before, after = LossAlerts(ALL), LossAlerts(ALL)
        for step, loss in enumerate(losses[:cut]):
            before.step(step, loss)
        after.load_state_dict(json.loads(json.dumps(before.state_dict(), allow_nan=False)))
        rest = enumerate(losses[cut:], start=cut)
        assert [alert for step, loss in rest for alert in after.step(step, loss)] == expected


# --- stalls ---------------------------------------------------------------------------------------


def test_a_stall_is_told_once_while_it_lasts() -> None:
    heard: list[tuple[float, float]] = []
    watch = StallWatch(0.1, lambda seconds, usual: heard.append((seconds, usual)))
    watch.step()
    time.sleep(0.3)
    assert len(heard) == 1 and heard[0][0] >= 0.1
    watch.step()
    time.sleep(0.05)
    watch.close()
    assert len(heard) == 1


def test_a_pause_and_slow_steps_are_no_stall() -> None:
    heard: list[float] = []
    watch = StallWatch(0.05, lambda seconds, usual: heard.append(seconds))
    with watch.pause():
        time.sleep(0.15)
    watch.close()
    slow = StallWatch(0.02, lambda seconds, usual: heard.append(seconds))
    slow._seconds.extend([0.5] * 5)
    time.sleep(0.1)
    slow.close()
    assert heard == []


# --- where they go --------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A web server on loopback, and what was posted to it; /no refuses."""
    posted: list[dict[str, Any]] = []

    class Hook(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            posted.append(json.loads(body))
            self.send_response(500 if self.path == "/no" else 204)
            self.end_headers()

        def log_message(self, *words: Any) -> None:
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}", posted
    running.shutdown()
    running.server_close()
    thread.join()


def test_a_webhook_posts_in_order_and_tells_one_failure(server: Any) -> None:
    address, posted = server
    notes: list[str] = []
    hook = Webhook(f"{address}/no", notes.append)
    hook.post({"n": 1})
    hook.post({"n": "é"})
    hook.close()
    assert posted == [{"n": 1}, {"n": "é"}]
    assert len(notes) == 1 and "did not take an alert" in notes[0] and address not in notes[0]


def test_a_webhook_that_is_not_there_is_told(server: Any) -> None:
    notes: list[str] = []
    hook = Webhook("http://127.0.0.1:9/secret", notes.append)
    hook.post({})
    hook.close()
    assert "refused" in notes[0] and "secret" not in notes[0]


class Hears(Callback):
    def __init__(self) -> None:
        self.alerts: list[Alert] = []

    def on_alert(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        self.alerts.append(facts["alert"])


class Poison(Callback):
    """Makes a weight not a number, as a broken machine would."""

    def on_step_end(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        import torch

        if state.global_step == 3:
            with torch.no_grad():
                facts["model"].core.named_parameters()[0][1].fill_(float("nan"))


def test_an_alert_goes_everywhere(small: Make, server: Any, capsys: Any) -> None:
    address, posted = server
    hears = Hears()
    wanted = small(alert_webhook=f"{address}/hook", eval_every=8)
    with pytest.raises(NonFiniteError):
        train(wanted, callbacks=[hears, Poison()])
    (alert,) = hears.alerts
    assert alert.kind == "divergence" and alert.step == 3
    assert "Alert, divergence: Step 4" in capsys.readouterr().err
    out = Path(wanted.train.out or "")
    assert read_records(out / "alerts.jsonl") == [alert.record()]
    (message,) = posted
    assert message["run"] == "run" and message["kind"] == "divergence" and message["step"] == 3
    assert message["text"] == f"run: divergence: {alert.message}"


def test_a_stalled_run_says_so_while_it_hangs(small: Make, capsys: Any) -> None:
    wanted = small(stall_after=0.3)
    path = Path(wanted.train.out or "") / "alerts.jsonl"

    class Hangs(Callback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
            limit = time.monotonic() + 60
            while state.global_step == 5 and not (path.exists() and path.read_text()):
                assert time.monotonic() < limit
                time.sleep(0.05)

    hears = Hears()
    train(wanted, callbacks=[Hangs(), hears])
    assert "Alert, stall: No step was finished for" in capsys.readouterr().err
    assert ("stall", 5) in [(each.kind, each.step) for each in hears.alerts]


def test_off_is_off(small: Make) -> None:
    hears = Hears()
    wanted = small(alerts="off")
    with pytest.raises(NonFiniteError):
        train(wanted, display=Display(silent=True), callbacks=[hears, Poison()])
    assert hears.alerts == [] and not (Path(wanted.train.out or "") / "alerts.jsonl").exists()


def test_alerts_of_steps_done_again_are_dropped(small: Make) -> None:
    wanted = small()
    train(wanted, display=Display(silent=True), stop_after=4)
    path = Path(wanted.train.out or "") / "alerts.jsonl"
    lines = [{"kind": "spike", "step": step, "message": "", "values": {}} for step in (2, 7)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    train(wanted, display=Display(silent=True), resume=True)
    assert [each["step"] for each in read_records(path)] == [2]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"alerts": "spike,off"}, "off cannot stand beside others"),
        ({"alerts": "spikes"}, "must be one of spike, divergence"),
        ({"alert_webhook": "ftp://a"}, "http:// or https://"),
        ({"stall_after": 0.0}, "at least 0.1"),
    ],
)
def test_wrong_wishes_are_refused(small: Make, values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        small(**values)
