"""Cuts drawn from all cuts of a unigram tokenizer: their distribution, their text, training."""

from __future__ import annotations

import math
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnima import Tokenizer
from omnima.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def unigram(trained: dict[str, Tokenizer]) -> Tokenizer:
    return trained["unigram"]


def in_sentencepiece(made: Tokenizer) -> Any:
    """The same pieces and scores in SentencePiece, whose space is another character."""
    pytest.importorskip("google.protobuf")
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2 as proto

    model = proto.ModelProto()
    model.trainer_spec.byte_fallback = True
    model.trainer_spec.unk_id = 0
    model.trainer_spec.bos_id, model.trainer_spec.eos_id, model.trainer_spec.pad_id = 1, 2, -1
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = False
    model.normalizer_spec.remove_extra_whitespaces = False
    description = made.description
    kinds = {0: 1, 1: 6, 2: 3}  # text, byte, control
    for piece, role, score in zip(
        description.pieces, description.roles, description.scores, strict=True
    ):
        entry = model.pieces.add()
        entry.piece = piece.replace(" ", "\u2581") if role == 0 else piece
        entry.score, entry.type = score, kinds[role]
    model.pieces[0].type = 2  # there must be an unknown one; the bytes leave it nothing
    return sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())


def distance(one: Counter[Any], other: Counter[Any]) -> tuple[float, int]:
    """Chi-square of two samples of the same size, rare kinds put together, and its freedom."""
    rare = [kind for kind in one | other if one[kind] + other[kind] < 20]
    pairs = [(one[kind], other[kind]) for kind in (one | other).keys() - set(rare)]
    pairs.append((sum(one[kind] for kind in rare), sum(other[kind] for kind in rare)))
    return sum((a - b) ** 2 / (a + b) for a, b in pairs if a + b), len(pairs) - 1


def beyond_chance(freedom: int) -> float:
    """Chi-square that chance passes once in a million (Laurent and Massart 2000, lemma 1).

    SentencePiece keeps its seed to itself once another test has drawn from it.
    """
    rare = math.log(1e6)
    return freedom + 2 * math.sqrt(freedom * rare) + 2 * rare


@pytest.mark.parametrize("alpha", [0.1, 0.5, 1.5])
def test_cuts_are_drawn_as_by_sentencepiece(unigram: Tokenizer, alpha: float) -> None:
    import sentencepiece

    theirs = in_sentencepiece(unigram)
    sentencepiece.set_random_generator_seed(17)
    text, draws = "the old garden é", 8000
    assert unigram.encode(text) == theirs.encode(text)
    expected = Counter(
        tuple(theirs.encode(text, enable_sampling=True, alpha=alpha, nbest_size=-1))
        for _ in range(draws)
    )
    found = Counter(tuple(unigram.encode_sampled(text, alpha, key)) for key in range(draws))
    far, freedom = distance(expected, found)
    assert freedom >= 2 and far < beyond_chance(freedom)


@settings(max_examples=80, deadline=None)
@given(
    text=st.text() | st.text(alphabet="the foxsaw12'\n "),
    alpha=st.sampled_from([0.0, 0.1, 0.5, 3.0]),
    key=st.integers(0, 2**63),
)
def test_a_drawn_cut_keeps_the_text(unigram: Tokenizer, text: str, alpha: float, key: int) -> None:
    ids = unigram.encode_sampled(text, alpha, key)
    assert unigram.decode(ids) == text and ids == unigram.encode_sampled(text, alpha, key)
    again = unigram.core.recut(unigram.encode(text), alpha, key)
    assert unigram.decode(again) == text
    assert unigram.decode(unigram.encode_sampled(text, 1e6, key)) == text


def test_a_large_alpha_gives_the_best_cut(unigram: Tokenizer, story: str) -> None:
    assert unigram.encode_sampled(story, 1e5, 1) == unigram.encode(story)
    mean = {
        alpha: sum(len(unigram.encode_sampled(story, alpha, key)) for key in range(20))
        for alpha in (0.0, 0.2, 1.0)
    }
    assert mean[0.0] > mean[0.2] > mean[1.0] > 20 * len(unigram.encode(story))


def test_threads_draw_the_same(unigram: Tokenizer, story: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        drawn = list(pool.map(lambda key: unigram.encode_sampled(story, 0.3, key % 5), range(60)))
    assert all(ids == drawn[number % 5] for number, ids in enumerate(drawn))
    assert len({tuple(ids) for ids in drawn}) == 5


def test_what_cannot_be_drawn_is_refused(unigram: Tokenizer, trained: dict[str, Tokenizer]) -> None:
    for kind in ("bpe", "byte", "char"):
        with pytest.raises(ConfigError, match="only a tokenizer of kind 'unigram' has"):
            trained[kind].encode_sampled("the", 0.1)
    for alpha in (-0.5, math.nan, math.inf):
        with pytest.raises(ConfigError, match="alpha is .*; expected 0"):
            unigram.encode_sampled("the", alpha)
    with pytest.raises(DataError, match="invalid Unicode at position 0"):
        unigram.encode_sampled("\ud800", 0.1)


@pytest.mark.parametrize("packing", ["windows", "documents"])
def test_rows_are_drawn_anew_in_every_epoch(
    packing: Any, unigram: Tokenizer, documents: list[str], tmp_path: Path
) -> None:
    from omnima.data import open_source, prepare

    path = tmp_path / "text.txt"
    path.write_text("\n\n".join(documents))
    data = prepare(open_source(path), unigram, tmp_path / "cache", 0.2)
    plain = data.loader("train", 4, 32, seed=5, packing=packing)
    drawn = data.loader("train", 4, 32, seed=5, packing=packing, tokenizer=unigram, alpha=0.2)
    epoch = plain.batches_per_epoch
    changed = 0
    for _ in range(2 * epoch):
        usual, anew = plain.next()[1].numpy(), drawn.next()[1].numpy()
        changed += (usual != anew).any()
        for before, after in zip(usual, anew):
            text = unigram.decode(after[after >= 0]).rstrip("\ufffd")
            assert packing == "documents" or unigram.decode(before[before >= 0]).startswith(text)
    assert changed > 1.9 * epoch
    again = data.loader("train", 4, 32, seed=5, packing=packing, tokenizer=unigram, alpha=0.2)
    again.seek(2 * epoch)
    assert (again.next()[0] == drawn.next()[0]).all()
    with pytest.raises(ConfigError, match="alpha and dropout are both given"):
        data.loader("train", 4, 32, tokenizer=unigram, alpha=0.2, dropout=0.1)


def test_a_run_says_what_does_not_go_together(trained: dict[str, Tokenizer]) -> None:
    from omnima.training import TrainConfig
    from omnima.training.recipe import Recipe

    for objective in ("masked", "span"):
        with pytest.raises(ConfigError, match=f"subword_sampling 0.1 goes .* not {objective}"):
            TrainConfig(steps=1, objective=objective, subword_sampling=0.1)
    with pytest.raises(ConfigError, match="leave out one of them"):
        TrainConfig(steps=1, bpe_dropout=0.1, subword_sampling=0.1)
    with pytest.raises(ConfigError, match="subword_sampling is 0.0, but must be at least 0.001"):
        TrainConfig(steps=1, subword_sampling=0.0)
    keys = {"data": ["tinyworld"], "preset": "1m", "steps": 1}
    for name, other in (("subword_sampling", "bpe"), ("bpe_dropout", "char")):
        with pytest.raises(ConfigError, match=f"{name} needs a tokenizer of kind"):
            Recipe.from_layers({**keys, name: 0.1, "tokenizer": other})
    made = Recipe.from_layers({**keys, "subword_sampling": 0.1, "tokenizer": "some/directory"})
    made.check_cuts("unigram")
    with pytest.raises(ConfigError, match="this one is of kind byte"):
        made.check_cuts("byte")
    assert made.identity()["subword_sampling"] == 0.1


def test_a_directory_of_another_kind_is_refused_before_the_text_is_cut(
    trained: dict[str, Tokenizer], tmp_path: Path
) -> None:
    from omnima.training.launch import train
    from omnima.training.recipe import Recipe

    trained["char"].save_pretrained(tmp_path / "char")
    keys = {"data": ["tinyworld:4KB"], "preset": "1m", "steps": 1, "bpe_dropout": 0.1}
    made = {**keys, "tokenizer": str(tmp_path / "char"), "out": str(tmp_path / "run")}
    with pytest.raises(ConfigError, match="bpe_dropout needs .* kind bpe, but this one is of kind"):
        train(Recipe.from_layers(made))
    assert not (tmp_path / "run" / "data").exists()


def test_a_run_with_drawn_cuts_resumes_bit_for_bit(tmp_path: Path) -> None:
    from omnima.training.recipe import Recipe
    from omnima.training.verify import verify_resume

    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    size |= {"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 32}
    recipe = Recipe.from_layers(
        {"data": ["tinyworld:20KB"], "steps": 6, "batch_size": 2, "model": size},
        ["tokenizer=unigram", "vocab_size=400", "subword_sampling=0.2", f"out={tmp_path}"],
    )
    assert verify_resume(recipe)["identical"]
