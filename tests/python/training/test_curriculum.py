"""Curricula: how hard documents are, what is refused, and whole runs from easy to hard."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import omnima.training.curriculum as curricula
from omnima import Model, Tokenizer
from omnima.data import TokenData, open_source, prepare
from omnima.errors import ConfigError, DataError
from omnima.training.config import TrainConfig
from omnima.training.curriculum import curriculum_of, document_scores, rows_of_steps
from omnima.training.display import Display
from omnima.training.launch import train
from omnima.training.objective import training_loader
from omnima.training.recipe import Recipe
from omnima.training.verify import verify_resume

from .runs import MODEL, quiet

TEXTS = [f"The {n % 9} cats " + "saw dogs " * (n % 13) + "ü" * (n % 3) for n in range(120)]


@dataclasses.dataclass
class Prepared:
    data: TokenData
    tokenizer: Any
    texts: list[str]  # of the training documents


def prepared(place: Path, texts: list[str] = TEXTS, kind: Any = "byte", **how: Any) -> Prepared:
    path = place / "text.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    tokenizer = Tokenizer.train(texts, kind, vocab_size=300 if kind == "bpe" else None)
    data = prepare(open_source(path), tokenizer, place / "cache", 0.2, **how)
    mask = data.training_mask()
    assert mask is not None
    return Prepared(data, tokenizer, [text for text, mine in zip(texts, mask) if mine])


@pytest.fixture
def cats_file(tmp_path: Path) -> str:
    path = tmp_path / "cats.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return str(path)


@pytest.fixture(scope="module")
def cats(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepared(tmp_path_factory.mktemp("cats"))


def save_model(place: Path, tokenizer: Any, seed: int = 1, **changes: Any) -> Path:
    model = Model.from_config({"vocab_size": tokenizer.vocab_size, **MODEL, **changes}, seed=seed)
    model.tokenizer = tokenizer
    model.save_pretrained(place)
    return place


def write_scores(place: Path, scores: Any) -> str:
    path = place / "scores.txt"
    path.write_text("".join(f"{score}\n" for score in scores))
    return str(path)


@pytest.mark.parametrize("split", ["hash", "position"])
@pytest.mark.parametrize("shard_bytes", [1 << 20, 600])
def test_training_documents_are_those_of_the_shards(
    split: Any, shard_bytes: int, tmp_path: Path
) -> None:
    made = prepared(tmp_path, split=split, shard_bytes=shard_bytes)
    ends = made.data.document_ends("train")
    assert ends[-1] == made.data.train_tokens
    mask = made.data.training_mask()
    assert mask is not None
    assert len(mask) == len(TEXTS)
    assert mask.sum() == len(ends)
    tokens = made.data.tokens("train")
    texts = [made.tokenizer.decode(part) for part in np.split(tokens, ends[:-1])]
    if split == "position":  # the last one goes on on the other side
        assert TEXTS[len(texts) - 1].startswith(texts.pop())
        made.texts.pop()
    assert texts == made.texts
    held_out = made.data.document_ends("val")
    assert held_out[-1] == made.data.val_tokens
    assert TokenData.open(made.data.directory).training_mask() is None


def test_pieces_of_a_long_document_lie_on_one_side(tmp_path: Path) -> None:
    from omnima.data.base import Piece
    from omnima.data.split import Splitter, sides_of_documents

    class Pieces:
        def pieces(self) -> Any:
            yield Piece("long ", False)
            yield Piece("", False)
            yield Piece("text", True)
            yield Piece("short", True)

    source: Any = Pieces()
    assert list(sides_of_documents(source, Splitter(0.5, 0, cut=7))) == [0, 1]
    assert len(list(sides_of_documents(source, Splitter(0.5, 0, None)))) == 2


def test_length_counts_tokens_with_the_end(cats: Prepared) -> None:
    scores = document_scores("length", cats.data, cats.tokenizer)
    assert scores.tolist() == [len(text.encode()) + 1 for text in cats.texts]


def test_a_file_gives_scores_for_all_documents_or_those_of_training(
    cats: Prepared, tmp_path: Path
) -> None:
    everything = np.arange(len(TEXTS)) / 7
    mask = cats.data.training_mask()
    all_of_them = document_scores(write_scores(tmp_path, everything), cats.data, cats.tokenizer)
    assert all_of_them.tolist() == everything[mask].tolist()
    for data in (cats.data, TokenData.open(cats.data.directory)):
        mine = document_scores(write_scores(tmp_path, everything[mask]), data, cats.tokenizer)
        assert mine.tolist() == all_of_them.tolist()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty: give one number a line"),
        (b"1\n2\n\n3\n", "line 3: '' is not a number"),
        (b"1\neasy\n", "line 2: 'easy' is not a number"),
        (b"1\nnan\n", "line 2: nan is not a finite number"),
        (b"-inf\n", "line 1: -inf is not a finite number"),
        (b"1\n2\n", "has 2 scores, but the text has 120 documents, "),
        (b"\xff\xfe\x00", "is not a text file"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    content: bytes, message: str, cats: Prepared, tmp_path: Path
) -> None:
    path = tmp_path / "scores.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        document_scores(str(path), cats.data, cats.tokenizer)


def test_without_the_text_only_scores_of_training_fit(cats: Prepared, tmp_path: Path) -> None:
    data = TokenData.open(cats.data.directory)
    with pytest.raises(DataError, match=f"but the text has {len(cats.texts)} for training"):
        document_scores(write_scores(tmp_path, range(len(TEXTS))), data, cats.tokenizer)


def test_what_has_no_order_is_refused(cats: Prepared, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither length, nor a file of scores"):
        document_scores("lenght", cats.data, cats.tokenizer)
    with pytest.raises(ConfigError, match="all .* training documents have the score 4"):
        document_scores(write_scores(tmp_path, [4] * 120), cats.data, cats.tokenizer)
    with pytest.raises(ConfigError, match=r"holds no config\.json"):
        document_scores(str(tmp_path), cats.data, cats.tokenizer)
    one = prepared(tmp_path, ["One long text. " * 40])
    with pytest.raises(ConfigError, match="a single document.*--document-break"):
        document_scores("length", one.data, one.tokenizer)


def reference_losses(directory: Path, rows: list[list[int]], start: int) -> list[float]:
    """The summed loss of each row alone, from the logits."""
    model = Model.from_pretrained(directory)
    sums = []
    for row in rows:
        logits = model(torch.tensor([[start, *row[:-1]]]))[0].detach()
        sums.append(float(torch.nn.functional.cross_entropy(logits, torch.tensor(row)) * len(row)))
    return sums


def test_a_model_with_the_same_tokenizer_scores_nats_a_token(
    cats: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curricula, "_BLOCK", 500)  # several calls of the core
    directory = save_model(tmp_path / "model", cats.tokenizer)
    calls: list[tuple[int, int]] = []
    scores = document_scores(
        str(directory), cats.data, cats.tokenizer, progress=lambda *done: calls.append(done)
    )
    count = len(cats.texts)
    assert len(calls) > 3
    assert calls[-1] == (count, count)
    rows = [[*cats.tokenizer.encode(text), cats.data.end_id][:32] for text in cats.texts]
    sums = reference_losses(directory, rows, cats.data.start_id)
    means = [total / len(row) for total, row in zip(sums, rows)]
    np.testing.assert_allclose(scores, means, rtol=1e-4)


@pytest.mark.parametrize("context", [16, 400])
def test_a_model_with_another_tokenizer_scores_nats_a_byte(
    context: int, cats: Prepared, tmp_path: Path
) -> None:
    other = Tokenizer.train(TEXTS, "bpe", vocab_size=300)
    directory = save_model(tmp_path / "model", other, max_position_embeddings=context)
    scores = document_scores(str(directory), cats.data, cats.tokenizer)
    full = [[*other.encode(text), other.eos_id] for text in cats.texts]
    rows = [row[:context] for row in full]
    sums = reference_losses(directory, rows, other.bos_id)
    sizes = [
        len((text if row == whole else other.decode(row)).encode())
        for text, row, whole in zip(cats.texts, rows, full)
    ]
    assert any(row != whole for row, whole in zip(rows, full)) == (context == 16)
    np.testing.assert_allclose(scores, np.array(sums) / np.array(sizes), rtol=1e-4)


def test_losses_are_kept_until_the_model_changes(cats: Prepared, tmp_path: Path) -> None:
    directory = save_model(tmp_path / "model", cats.tokenizer, seed=11)

    def measured() -> tuple[int, list[float]]:
        calls: list[int] = []
        found = document_scores(
            str(directory), cats.data, cats.tokenizer, progress=lambda done, _: calls.append(done)
        )
        return len(calls), found.tolist()

    before = set(cats.data.directory.glob("losses-*.npy"))
    times, scores = measured()
    assert times > 0
    assert measured() == (0, scores)
    save_model(directory, cats.tokenizer, seed=12)  # other weights in the same place
    times, others = measured()
    assert times > 0
    assert others != scores
    save_model(directory, cats.tokenizer, seed=11)
    assert measured() == (0, scores)
    (kept,) = [
        path
        for path in set(cats.data.directory.glob("losses-*.npy")) - before
        if np.load(path).tolist() == scores
    ]
    np.save(kept, np.full(len(scores), np.nan))
    assert measured()[0] > 0
    kept.write_bytes(b"damaged")
    times, again = measured()
    assert times > 0
    assert again == scores


def test_models_that_cannot_score_are_refused(cats: Prepared, tmp_path: Path) -> None:
    both_sides = save_model(tmp_path / "masked", cats.tokenizer, causal=False)
    with pytest.raises(ConfigError, match="causal false"):
        document_scores(str(both_sides), cats.data, cats.tokenizer)
    other = Tokenizer.train(TEXTS, "bpe", vocab_size=300)

    class Nameless:
        bos_id = eos_id = None

    with pytest.raises(ConfigError, match="neither a begin nor an end token"):
        curricula._borders(cast(Any, Nameless()), tmp_path)
    assert curricula._borders(other, tmp_path) == (other.bos_id, other.eos_id)
    ruined = Model.from_pretrained(save_model(tmp_path / "ruined", cats.tokenizer))
    with torch.no_grad():
        ruined.named_parameters()[0][1].fill_(float("nan"))
    ruined.save_pretrained(tmp_path / "ruined")
    with pytest.raises(DataError, match="training document 1 is not finite"):
        document_scores(str(tmp_path / "ruined"), cats.data, cats.tokenizer)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 80), st.integers(0, 60), st.integers(1, 9), st.integers(1, 4))
def test_rows_of_steps_are_counted_as_a_ramp_gives_them(
    steps: int, ramp: int, accumulate: int, rows: int
) -> None:
    config = TrainConfig(
        steps=100,
        batch_size=rows,
        accumulate=accumulate,
        ramp_steps=ramp if accumulate > 1 else 0,
    )
    batches = [
        accumulate if step >= config.ramp_steps else 1 + (accumulate - 1) * step // ramp
        for step in range(steps)
    ]
    assert rows_of_steps(config, steps) == rows * sum(batches)


def test_a_curriculum_lasts_half_of_the_budget_or_as_said(cats: Prepared) -> None:
    scores = document_scores("length", cats.data, cats.tokenizer)
    assert curriculum_of(TrainConfig(steps=3), None) is None

    def rows(**values: Any) -> int:
        config = TrainConfig(**{"curriculum": "length", "curriculum_start": 1.0, **values})
        loader = cats.data.loader(
            "train", 2, 16, packing="documents", curriculum=curriculum_of(config, scores)
        )
        epoch = loader.rows_per_epoch
        ordered: int = loader.curriculum_rows
        assert ordered % epoch == 0  # all are in at once, so it is whole passes
        return -(-ordered // epoch)

    epoch = cats.data.loader("train", 1, 16, packing="documents").rows_per_epoch
    assert rows(steps=1, batch_size=1) == 1
    assert rows(steps=2 * epoch, batch_size=1) == 1
    assert rows(steps=2 * epoch, batch_size=2) == 2
    assert rows(steps=2 * epoch, batch_size=2, curriculum_steps=2 * epoch) == 4
    assert rows(epochs=6.0) == 3
    assert rows(epochs=6.0, batch_size=1, curriculum_steps=epoch + 1) == 2
    assert rows(minutes=1.0, batch_size=1, curriculum_steps=epoch) == 1


def test_contradictions_are_refused() -> None:
    said = r"curriculum_pacing=sqrt, curriculum_start=0.2, curriculum_steps=2 without a curriculum"
    with pytest.raises(ConfigError, match=said):
        TrainConfig(steps=3, curriculum_pacing="sqrt", curriculum_start=0.2, curriculum_steps=2)
    with pytest.raises(ConfigError, match="say with curriculum_steps"):
        TrainConfig(minutes=1, curriculum="length")
    with pytest.raises(ConfigError, match="hardest rows would never come"):
        TrainConfig(steps=5, curriculum="length", curriculum_steps=6)
    with pytest.raises(ConfigError, match="linear, sqrt, step, exponential"):
        TrainConfig(steps=5, curriculum="length", curriculum_pacing="cubic")
    with pytest.raises(ConfigError, match="at least 0.001 and at most 1"):
        TrainConfig(steps=5, curriculum="length", curriculum_start=0.0)


def test_flags_sets_and_yaml_say_the_same(tmp_path: Path) -> None:
    values = {"curriculum": "length", "curriculum_pacing": "sqrt", "curriculum_start": 0.2}
    plain = {"data": ["tinyworld"], "preset": "nima", "steps": 9}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**plain, **values, "curriculum_steps": 4}))
    sets = [f"{key}={value}" for key, value in values.items()]
    recipes = [
        Recipe.from_layers({**plain, **values, "curriculum_steps": "4"}),
        Recipe.from_layers(plain, [*sets, "curriculum_steps=4"]),
        Recipe.from_layers({}, [], path),
    ]
    assert recipes[0] == recipes[1] == recipes[2]
    assert recipes[0].identity()["curriculum_pacing"] == "sqrt"


def test_a_run_reads_easy_text_first(small: Callable[..., Recipe], tmp_path: Path) -> None:
    path = tmp_path / "two.jsonl"
    texts = [f"{n} {word}" for n in range(50) for word in ("aaaa " * 6, "zzzz " * 6)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    recipe = small(
        data=[str(path)],
        curriculum=write_scores(tmp_path, [0, 1] * 50),
        curriculum_start=0.2,
        packing="documents",
        steps=16,
    )
    run = quiet(recipe)
    facts = json.loads((run.path / "run.json").read_text())["facts"]
    tokenizer = Tokenizer.from_pretrained(run.path)
    data = prepare(open_source(path), tokenizer, run.path / "data", recipe.val_fraction)
    scores = np.array([0.0, 1.0] * 50)[data.training_mask()]
    assert facts["curriculum"] == curricula.fingerprint(scores)
    loader = training_loader(
        data, recipe.train, tokenizer, 2, 32, curriculum_of(recipe.train, scores)
    )
    batches = [loader.next()[1] for _ in range(16)]
    hard = [int((batch == tokenizer.encode("z")[-1]).sum()) for batch in batches]
    assert sum(hard[:2]) == 0 < sum(hard[8:])
    losses = [record["loss"] for record in run.history]
    plain = quiet(small(data=[str(path)], packing="documents", steps=16, out=str(tmp_path / "b")))
    assert losses != [record["loss"] for record in plain.history]
    assert "curriculum" not in json.loads((plain.path / "run.json").read_text())["facts"]


def test_a_changed_file_is_no_resume(
    small: Callable[..., Recipe], cats_file: str, tmp_path: Path
) -> None:
    recipe = small(data=[cats_file], curriculum=write_scores(tmp_path, range(120)))
    said = io.StringIO()
    train(recipe, display=Display(said), stop_after=4)
    assert re.search(r"Curriculum by .*10% of \d+ rows .* after 4 steps", said.getvalue())
    write_scores(tmp_path, range(120, 0, -1))
    with pytest.raises(ConfigError, match="started differently .curriculum: "):
        quiet(recipe, resume=True)
    write_scores(tmp_path, range(120))
    assert quiet(recipe, resume=True).summary["steps"] == 8


def test_a_run_by_a_models_loss_resumes_bit_for_bit(
    small: Callable[..., Recipe], cats_file: str, tmp_path: Path
) -> None:
    tokenizer = Tokenizer.train(TEXTS, "byte")
    directory = save_model(tmp_path / "small-model", tokenizer)
    recipe = small(
        data=[cats_file],
        curriculum=str(directory),
        curriculum_pacing="exponential",
        curriculum_steps=7,
        packing="documents",
        accumulate=2,
        ramp_steps=3,
    )
    assert verify_resume(recipe)["identical"]
