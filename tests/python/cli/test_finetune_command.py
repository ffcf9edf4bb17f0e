"""`omnima finetune`: its JSON, a resumed and a refused run, and a run from another's recipe."""

from __future__ import annotations

import json
from pathlib import Path

import omnima
from omnima import Model, Tokenizer
from omnima.training.finetune import finetune
from omnima.training.run import SUMMARY_KEYS

from .conftest import Says

SHAPE = {
    "max_position_embeddings": 96,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


def test_the_command(tmp_path: Path, shown: Says, refused: Says) -> None:
    records = [{"prompt": f"{n} + 1 =", "completion": f" {n + 1}"} for n in range(40)]
    data = tmp_path / "a.jsonl"
    data.write_text("".join(json.dumps(each) + "\n" for each in records))
    tokenizer = Tokenizer.train(["1 + 2 = 3"], "byte")
    model = Model.from_config({**SHAPE, "vocab_size": tokenizer.vocab_size})
    model.tokenizer = tokenizer
    model.save_pretrained(tmp_path / "base")
    command = ("finetune", tmp_path / "base", "--data", data, "--steps", 2, "--context", 96)
    command += ("--batch-size", 2, "--accumulate", 2, "--lr", "1e-3", "--precision", "fp32")
    found = json.loads(shown(*command, "--out", tmp_path / "run", "--json"))
    ours = {"trainable_parameters", "supervised_tokens", "loss_before", "loss_after", "report"}
    assert set(found) == {*SUMMARY_KEYS, *ours}
    assert "## Answers" in Path(found["report"]).read_text()
    assert "already holds a run" in refused(*command, "--out", tmp_path / "run")
    shown(*command, "--out", tmp_path / "run", "--resume")
    said = refused(*command, "--out", tmp_path / "b", "--method", "lora9")
    assert "method is 'lora9'" in said
    shown("finetune", "--config", tmp_path / "run", "--out", tmp_path / "c", "--steps", 1,
          "--answers", 0)  # fmt: skip
    assert "## Answers" not in (tmp_path / "c" / "report.md").read_text()
    assert omnima.finetune is finetune
