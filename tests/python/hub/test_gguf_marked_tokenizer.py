"""GGUF's tokenizers of the kind "llama", both ways; ids are those of the sentencepiece package."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import pytest
import sentencepiece

from omnima import Model
from omnima.config import ModelConfig
from omnima.errors import ConfigError, DataError
from omnima.hub import load_gguf, save_gguf
from omnima.hub.gguf.tokenizer import read_tokenizer, write_tokenizer
from omnima.tokenizers import Tokenizer
from omnima.tokenizers.description import Marking

LETTERS = "abcdefghij éñ日本"


def texts(count: int) -> list[str]:
    draw = random.Random(7)
    odd = ["", " ", "  ", "▁", "🦊", "\n", "<s>", "<0x41>", "aaaa", " a  b   c", "Привет"]
    return odd + [
        "".join(draw.choices(LETTERS + "  \n\t🦊", k=draw.randrange(1, 40))) for _ in range(count)
    ]


TEXTS = texts(1500)


def learn(**options: Any) -> bytes:
    draw = random.Random(5)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=("".join(draw.choices(LETTERS + "  aab", k=30)) for _ in range(500)),
        model_writer=model,
        model_type=options.pop("model_type", "bpe"),
        vocab_size=500,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=options.pop("remove_extra_whitespaces", False),
        allow_whitespace_only_pieces=True,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
        **options,
    )
    return model.getvalue()


def load(model: bytes, path: Path) -> Tokenizer:
    (path / "tokenizer.model").write_bytes(model)
    return Tokenizer.from_pretrained(path)


def keys(tokenizer: Tokenizer, size: int | None = None) -> dict[str, Any]:
    pairs = write_tokenizer(tokenizer, size or tokenizer.vocab_size)
    return {key: value for key, _, value in pairs}


@pytest.mark.parametrize("prefix", [True, False])
def test_ids_are_those_of_sentencepiece(prefix: bool, tmp_path: Path) -> None:
    model = learn(add_dummy_prefix=prefix)
    theirs = sentencepiece.SentencePieceProcessor(model_proto=model)
    ours = load(model, tmp_path)
    metadata = keys(ours, ours.vocab_size + 3)
    assert metadata["tokenizer.ggml.model"] == "llama"
    assert metadata["tokenizer.ggml.add_space_prefix"] is prefix
    assert metadata["tokenizer.ggml.token_type"][:4] == [2 if prefix else 3, 3, 3, 6]
    assert metadata["tokenizer.ggml.tokens"][-1] == f"[PAD{ours.vocab_size + 2}]"
    found = read_tokenizer(metadata, "model.gguf")
    assert found is not None and (found.bos_id, found.eos_id) == (1, 2)
    expected = theirs.encode(TEXTS)
    assert [row.tolist() for row in found.encode_batch(TEXTS, threads=1)] == expected
    assert [found.decode(row) for row in expected] == theirs.decode(expected)
    written = keys(found)
    assert written.pop("tokenizer.ggml.token_type")[-4:] == [1, 1, 1, 1]
    assert written.pop("tokenizer.ggml.unknown_token_id") == 0
    metadata.pop("tokenizer.ggml.unknown_token_id", None)
    assert {**metadata, **written} == metadata
    found.save_pretrained(tmp_path / "saved")
    again = Tokenizer.from_pretrained(tmp_path / "saved")
    assert again.fingerprint == found.fingerprint
    assert [again.encode(text) for text in TEXTS] == expected


def test_a_special_token_puts_a_space_behind_it_and_users_are_found_first(tmp_path: Path) -> None:
    model = learn(user_defined_symbols=["▁▁▁", "<x>"])
    ours = load(model, tmp_path)
    metadata = keys(ours)
    assert "   " in metadata["tokenizer.ggml.tokens"]
    found = read_tokenizer(metadata, "model.gguf")
    assert found is not None
    spaces = metadata["tokenizer.ggml.tokens"].index("   ")
    one = found.encode("a")
    assert found.encode("a   a<x>a") == [*one, spaces, *one, found.encode("<x>")[0], *one]
    assert found.encode("a</s>a", parse_special=True) == [*one, 2, *one]
    assert found.encode("a</s>a") != found.encode("a</s>a", parse_special=True)
    assert found.decode([*one, 2, *one]) == "a a"
    found.save_pretrained(tmp_path / "saved")
    again = Tokenizer.from_pretrained(tmp_path / "saved")
    assert again.encode("a   a<x>a") == found.encode("a   a<x>a")


def test_the_tokens_of_phi_3_take_spaces_along(tmp_path: Path) -> None:
    metadata = keys(load(learn(control_symbols=["<|user|>"]), tmp_path))
    plain = read_tokenizer(metadata, "model.gguf")
    phi = read_tokenizer(metadata | {"general.name": "Phi-3 mini"}, "model.gguf")
    assert plain is not None and phi is not None
    user = plain.special_tokens["<|user|>"]
    one = plain.encode("a")
    assert phi.encode("<|user|>\n a", parse_special=True) == [user, *one]
    assert plain.encode("<|user|>\n a", parse_special=True) != [user, *one]
    assert phi.encode("<s> a", parse_special=True) == plain.encode("<s> a", parse_special=True)


def test_merges_in_order_become_scores(tmp_path: Path) -> None:
    model = learn(add_dummy_prefix=True)
    ours = load(model, tmp_path)
    ours.save_pretrained(tmp_path / "saved")
    for name in ("tokenizer.model", "tokenizer_config.json"):
        (tmp_path / "saved" / name).unlink()
    by_merges = Tokenizer.from_file(tmp_path / "saved" / "tokenizer.json", bos_token="<s>")
    assert len(by_merges.description.merges) and not by_merges.description.scores
    found = read_tokenizer(keys(by_merges), "model.gguf")
    assert found is not None
    assert [found.encode(text) for text in TEXTS] == [ours.encode(text) for text in TEXTS]


def open_in_llama_cpp(llama_cpp: Any, tokenizer: Tokenizer, folder: Path) -> Any:
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
             "num_attention_heads": 2, "num_key_value_heads": 2,
             "max_position_embeddings": 64}  # fmt: skip
    model = Model.from_config(ModelConfig(vocab_size=tokenizer.vocab_size + 5, **shape))
    path = folder / "model.gguf"
    save_gguf(model.core.config.values(), model.named_parameters(), path, tokenizer, "f32")
    return llama_cpp.Llama(str(path), vocab_only=True, verbose=False)


@pytest.mark.parametrize("prefix", [True, False])
def test_ids_are_those_of_llama_cpp(prefix: bool, tmp_path: Path) -> None:
    llama_cpp = pytest.importorskip("llama_cpp")
    users = ["▁▁▁", "<x>"] if not prefix else []
    ours = load(learn(add_dummy_prefix=prefix, user_defined_symbols=users), tmp_path)
    theirs = open_in_llama_cpp(llama_cpp, ours, tmp_path)
    found = load_gguf(tmp_path / "model.gguf")[2]
    assert found is not None
    texts = [*TEXTS, "a<x>b   c    d", "a</s> b", "   "]
    for special in (True, False):
        for text in texts:
            expected = theirs.tokenize(text.encode(), add_bos=False, special=special)
            assert found.encode(text, parse_special=special) == expected


@pytest.mark.parametrize(("kind", "model"), [("bpe", "llama"), ("byte", "gpt2")])
def test_tokenizers_trained_here_go_into_gguf(kind: Any, model: str, tmp_path: Path) -> None:
    ours = Tokenizer.train(TEXTS[11:400], kind, special_tokens=["<x>"])
    written = keys(ours)
    assert written["tokenizer.ggml.model"] == model
    found = read_tokenizer(written, "model.gguf")
    assert found is not None
    # Where pieces spell spaces as U+2581, llama.cpp takes that character for a space.
    texts = [text for text in TEXTS if kind == "byte" or "\u2581" not in text]
    rows = [ours.encode(text) for text in texts]
    assert [found.encode(text) for text in texts] == rows
    assert [found.decode(row) for row in rows] == [ours.decode(row) for row in rows]
    llama_cpp = pytest.importorskip("llama_cpp")
    theirs = open_in_llama_cpp(llama_cpp, ours, tmp_path)
    assert [theirs.tokenize(text.encode(), add_bos=False, special=False) for text in texts] == rows


def test_what_llama_cpp_would_cut_differently_is_refused(tmp_path: Path) -> None:
    from dataclasses import replace

    spaces = load(learn(remove_extra_whitespaces=True), tmp_path)
    with pytest.raises(ConfigError, match="does not have spaces that are collapsed"):
        keys(spaces)
    with pytest.raises(ConfigError, match="a unigram model"):
        keys(load(learn(model_type="unigram"), tmp_path))
    description = load(learn(), tmp_path).description
    words = replace(description, marking=Marking(words=True))
    with pytest.raises(ConfigError, match="words cut before they are merged"):
        keys(Tokenizer(words))
    from omnima.tokenizers.description import merges_by_score

    merges = merges_by_score(description)
    few = replace(description, scores=(), merges=merges[::2])
    with pytest.raises(ConfigError, match="merges every two pieces that join to a piece"):
        keys(Tokenizer(few))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("scores", None, "scores does not have one entry a token"),
        ("scores", [0.0], "scores does not have one entry a token"),
        ("scores", "nan", "scores has nan for the token 5"),
        ("scores", "text", "scores has 'x' for the token 5"),
        ("token_type", [1], "token_type does not have one whole number a token"),
        ("token_type", "lists", "token_type does not have one whole number a token"),
        ("token_type", "no bytes", "has 0 byte tokens"),
        ("tokens", "empty", r"model.gguf: piece \d+ of the vocabulary is empty"),
        ("bos_token_id", True, "bos_token_id is True, which is no id of"),
        ("tokens", "twice", "holds a token twice"),
        ("tokens", "byte", "the byte token '<0xGG>' is none of"),
        ("tokens", None, "tokens is missing, or no list of texts"),
        ("bos_token_id", 10_000, "bos_token_id is 10000, which is no id of"),
    ],
)
def test_damaged_lists_are_refused(key: str, value: Any, message: str, tmp_path: Path) -> None:
    metadata = keys(load(learn(), tmp_path))
    name = f"tokenizer.ggml.{key}"
    old = list(metadata[name]) if isinstance(metadata[name], list) else []
    edits: dict[str, Any] = {
        "nan": [*old[:5], float("nan"), *old[6:]],
        "text": [*old[:5], "x", *old[6:]],
        "no bytes": [1] * len(old),
        "lists": [[1]] * len(old),
        "empty": [*old[:-1], ""],
        "twice": [*old[:-1], old[0]] if old else [],
        "byte": [*old[:5], "<0xGG>", *old[6:]],
    }
    metadata[name] = edits[value] if isinstance(value, str) else value
    with pytest.raises(DataError, match=message) as raised:
        read_tokenizer(metadata, "model.gguf")
    assert "model.gguf" in str(raised.value)


def test_what_a_file_does_not_say(tmp_path: Path) -> None:
    metadata = keys(load(learn(), tmp_path))
    for name in ("bos_token_id", "eos_token_id", "unknown_token_id", "add_space_prefix",
                 "add_bos_token"):  # fmt: skip
        del metadata[f"tokenizer.ggml.{name}"]
    found = read_tokenizer(metadata, "model.gguf")
    assert found is not None and (found.bos_id, found.eos_id) == (1, 2)
    assert found.description.adds_bos and found.decode(found.encode("a")) == "a"


def test_a_cut_that_is_no_name_is_refused() -> None:
    metadata = {"model": "gpt2", "tokens": ["a"], "merges": [], "pre": ["qwen2"]}
    with pytest.raises(DataError, match=r"model.gguf: text is to be cut as by \['qwen2'\]"):
        read_tokenizer({f"tokenizer.ggml.{k}": each for k, each in metadata.items()}, "model.gguf")
