"""A quick gate with a wide margin: a step must not become slower than plain PyTorch's. The real one
is `make bench-gate`."""

from __future__ import annotations

import os

import pytest

from omnima.benchmarking import benchmark, check_gate

# Measured 2.6 and 1.7 at the whole shape.
RULES = [
    {"peer": "torch-eager", "precision": "bf16", "at_least": 1.2},
    {"peer": "torch-eager", "precision": "fp32", "at_least": 0.9},
]


@pytest.mark.skipif("OMNIMA_CPU_ISA" in os.environ, reason="a forced level is not to be fast")
@pytest.mark.skipif("OMNIMA_REFERENCE" in os.environ, reason="the reference is not to be fast")
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["precision"])
def test_a_step_is_not_slower_than_pytorch(rule):
    if os.getloadavg()[0] > 1.5 * (os.cpu_count() or 1):
        pytest.skip("the machine is busy with other work")
    for rounds in (3, 7):
        report = benchmark(
            "train",
            preset="bench-1.9m",
            batch_size=8,
            precision=rule["precision"],
            peers="torch-eager",
            rounds=rounds,
            seconds=0.3,
        )
        if not check_gate(report, [rule]):
            return
    pytest.fail(str(check_gate(report, [rule])))
