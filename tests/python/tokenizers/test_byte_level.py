"""Byte-level BPE of the GPT-2, Llama 3 and Qwen kind: ids as in the libraries it comes from."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnima import Tokenizer
from omnima._core import split_pattern_names
from omnima.errors import ConfigError, DataError
from omnima.tokenizers import rank_file, stages

tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")

PATTERNS = tuple(split_pattern_names())
END, BEGIN, TOOL = "<|endoftext|>", "<|begin|>", "<tool>"
PARTS = [*"aAbZsStT'’ \n\r\t  1239.,!/-_ſé中ǅʰ\u0301\u0300٣Ⅷ\u00a0\u2028\u3000\u0085\u200b🦊각각"]
PARTS += ["'s", "'LL", "'re", "'Ve", " the", "  ", "\r\n", "fox", " 12", TOOL]
mixed = st.lists(st.one_of(st.sampled_from(PARTS), st.text(max_size=3)), max_size=40).map("".join)
# Characters that Unicode 16 does not know yet are classified otherwise by newer tables.
known = mixed.filter(lambda text: all(rank_known(character) for character in text))


def rank_known(character: str) -> bool:
    import unicodedata

    return unicodedata.category(character) != "Cn"


def corpus() -> list[str]:
    chance = random.Random(0)
    words = (
        "the fox's LITTLE foxes don't go Into WOODs 12 345 naïve 我爱北京 def f(x):\n    return x\n"
    )
    return ["".join(chance.choice(words.split(" ")) + " " for _ in range(40)) for _ in range(60)]


def theirs(pattern: str, nfc: bool = False, begin: bool = False, whole: bool = False) -> Any:
    """Train a byte-level tokenizer with the tokenizers library."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE(ignore_merges=whole))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=[END],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(corpus(), trainer)
    content = json.loads(made.to_str())
    content["pre_tokenizer"] = stages.pre_tokenizer_json(pattern)
    content["decoder"] = stages.byte_level_json()
    content["normalizer"] = {"type": "NFC"} if nfc else None
    made = tokenizers.Tokenizer.from_str(json.dumps(content))
    made.add_tokens([tokenizers.AddedToken(TOOL, normalized=False)])
    if begin:
        made.add_special_tokens([BEGIN])
        made.post_processor = tokenizers.processors.TemplateProcessing(
            single=f"{BEGIN} $A", special_tokens=[(BEGIN, made.token_to_id(BEGIN))]
        )
    return made


def saved(made: Any, directory: Path, **config: Any) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    made.save(str(directory / "tokenizer.json"))
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, **config}
    (directory / "tokenizer_config.json").write_text(json.dumps(names))
    return directory


@pytest.fixture(scope="module", params=PATTERNS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tokenizer of the library and ours, loaded from its files."""
    made = theirs(request.param, nfc=request.param == "qwen2", whole=request.param == "llama3")
    directory = saved(made, tmp_path_factory.mktemp(request.param), bos_token=END)
    return made, Tokenizer.from_pretrained(directory)


@settings(max_examples=80, deadline=None)
@given(text=known)
def test_same_ids_on_random_text(pair: Any, text: str) -> None:
    made, ours = pair
    ids = ours.encode(text, parse_special=True)
    assert ids == made.encode(text, add_special_tokens=False).ids
    assert ours.decode(ids) == made.decode(ids)
    if not ours.description.nfc:
        assert ours.decode(ids) == text


def test_same_ids_on_every_character_and_on_books(
    pair: Any, read_text: Callable[[str, int], str]
) -> None:
    made, ours = pair
    points = [chr(code) for code in range(0x30000) if not 0xD800 <= code < 0xE000]
    every = [character for character in points if rank_known(character)]
    texts = ["".join(every), " ".join(every), "a".join(every[::7]), "".join(c + "S" for c in every)]
    texts += [
        "",
        " ",
        "\n  ",
        "x  9",
        "a \n\n b",
        "\t\t\tif x:\n\n\n    y",
        "'s'S'ſ 'lL",
        "  \r\n \r",
    ]
    texts += [
        read_text(name, 100_000)
        for name in ("text/fr_monte_cristo_1.txt", "squad/xquad.zh.json.gz")
    ]
    if ours.description.nfc:  # the library's own tables of composition are older
        texts = texts[4:]
    for text, encoded in zip(texts, made.encode_batch(texts, add_special_tokens=False)):
        assert ours.encode(text, parse_special=True) == encoded.ids


def test_it_is_saved_for_transformers(pair: Any, tmp_path: Path) -> None:
    made, ours = pair
    ours.save_pretrained(tmp_path)
    again = Tokenizer.from_pretrained(tmp_path)
    assert again.fingerprint == ours.fingerprint
    assert ours.kind == "bpe" and (ours.bos_id, ours.eos_id) == (0, 0)
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in [*corpus()[:3], "  \n x'S 12345  \n", "e\u0301 \u1100\u1161 1Ⅷ٣", f"a{TOOL}b{END}"]:
        ids = list(loaded(text)["input_ids"])
        assert ids == again.encode(text, parse_special=True)
        assert loaded.decode(ids, skip_special_tokens=True) == again.decode(ids)


def test_nfc_equals_unicodedata(tmp_path: Path) -> None:
    import unicodedata

    ours = Tokenizer.from_pretrained(saved(theirs("qwen2", nfc=True), tmp_path))
    points = [chr(code) for code in range(0x30000) if not 0xD800 <= code < 0xE000]
    every = [character for character in points if rank_known(character)]
    marks = [character for character in every if unicodedata.combining(character)]
    chance = random.Random(3)
    texts = ["|".join(every), unicodedata.normalize("NFD", "|".join(every)), "".join(every)]
    for _ in range(40):
        letters = [*"aeo|가각각", *chance.sample(marks, 4)]
        texts.append("".join(chance.choice(letters) for _ in range(200)))
    for text in texts:
        assert ours.decode(ours.encode(text)) == unicodedata.normalize("NFC", text)


def test_a_template_becomes_the_begin_token_and_back(tmp_path: Path) -> None:
    made = theirs("llama3", begin=True)
    ours = Tokenizer.from_pretrained(saved(made, tmp_path / "a", bos_token=BEGIN))
    assert ours.encode("the fox", add_bos=True) == made.encode("the fox").ids
    ours.save_pretrained(tmp_path / "b")
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path / "b")
    assert list(loaded("the fox")["input_ids"]) == ours.encode("the fox", add_bos=True)
    with pytest.raises(DataError, match="a post_processor that adds '<|begin|>', which is not"):
        Tokenizer.from_pretrained(saved(made, tmp_path / "c", bos_token=END))


def test_the_first_files_of_gpt2_are_read(tmp_path: Path) -> None:
    made = theirs("gpt2")
    content = json.loads(made.to_str())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(content["vocab"]))
    with pytest.raises(DataError, match=r"merges\.txt: the merges that go with vocab\.json"):
        Tokenizer.from_pretrained(tmp_path)
    merges = ["#version: 0.2", *(" ".join(merge) for merge in content["merges"]), ""]
    (tmp_path / "merges.txt").write_text("\n".join(merges))
    ours = Tokenizer.from_pretrained(tmp_path)
    assert ours.bos_id == ours.eos_id == made.token_to_id(END) and ours.pad_id is None
    assert ours.encode(corpus()[0]) == made.encode(corpus()[0]).ids
    del content["vocab"][END]
    content["vocab"] = {piece: i for i, piece in enumerate(content["vocab"])}
    (tmp_path / "vocab.json").write_text(json.dumps(content["vocab"]))
    assert Tokenizer.from_pretrained(tmp_path).eos_id is None


def edit(pre: Any = None, **top: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        if pre is not None:
            content["pre_tokenizer"] = pre
        content.update(top)

    return change


def drop_byte(content: dict[str, Any], byte: str = "!") -> None:
    vocabulary = content["model"]["vocab"]
    vocabulary["!!"] = vocabulary.pop(byte)


def add_character(content: dict[str, Any]) -> None:
    content["added_tokens"].pop()  # its id goes to the new piece
    content["model"]["vocab"]["我"] = len(content["model"]["vocab"])


def split_of(**changes: Any) -> dict[str, Any]:
    stage = stages.pre_tokenizer_json("llama3")
    stage["pretokenizers"][0].update(changes)
    return stage


SPECIAL = {"SpecialToken": {"id": END, "type_id": 0}}
TEXT = {"Sequence": {"id": "A", "type_id": 0}}


def template(*parts: Any) -> dict[str, Any]:
    return {"type": "TemplateProcessing", "single": list(parts)}


REFUSED = [
    (edit(split_of(pattern={"Regex": r"\w+"})), r"pattern '\\w\+' \(known: llama3, qwen2"),
    (edit(split_of(behavior="Removed")), "'Split' with behavior=Removed and invert=False"),
    (edit({"type": "ByteLevel", "add_prefix_space": True}), "with add_prefix_space"),
    (edit({"type": "Whitespace"}), "the pre_tokenizer 'Whitespace'"),
    (edit("odd"), "the pre_tokenizer 'odd'"),
    (
        edit({**stages.pre_tokenizer_json("llama3"), "pretokenizers": [
            split_of()["pretokenizers"][0], stages.byte_level_json(True)]}),
        "use_regex=True",
    ),
    (
        edit({"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": False}, stages.byte_level_json()]}),
        "'Digits' without individual_digits",
    ),
    (edit(normalizer={"type": "NFKC"}), "the normalizer 'NFKC'"),
    (edit(normalizer="odd"), "the normalizer 'odd'"),
    (edit(post_processor={"type": "BertProcessing"}), "the post_processor 'BertProcessing'"),
    (edit(post_processor=template(SPECIAL)), "without the text in it once"),
    (edit(post_processor=template(SPECIAL, SPECIAL, TEXT)), "several tokens on one side"),
    (
        edit(post_processor={"type": "Sequence", "processors": [template(SPECIAL, TEXT)] * 2}),
        "of several templates",
    ),
    (drop_byte, "no piece for the byte '!'"),
    (add_character, "stands for no byte"),
    (lambda c: c["model"].update(type="Unigram"), "a unigram model with a pre_tokenizer"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_what_would_give_other_ids_is_refused(
    change: Callable[[dict[str, Any]], None], message: str, tmp_path: Path
) -> None:
    saved(theirs("gpt2"), tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        Tokenizer.from_pretrained(tmp_path)


def test_bytes_without_a_piece_vanish_as_in_tokenizers(tmp_path: Path) -> None:
    saved(theirs("gpt2"), tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text())
    drop_byte(content, "ñ")  # which spells the byte 0xF1
    path.write_text(json.dumps(content))
    ours = Tokenizer.from_pretrained(tmp_path)
    text = "a\U00050000b"  # in UTF-8 the only kind of character that begins with 0xF1
    assert ours.encode(text) == tokenizers.Tokenizer.from_file(str(path)).encode(text).ids
    assert ours.decode(ours.encode("ab")) == "ab" and len(ours.encode(text)) < 6


def test_a_processor_that_only_moves_offsets_is_read(tmp_path: Path) -> None:
    made = theirs("gpt2")
    made.post_processor = tokenizers.processors.Sequence(
        [tokenizers.processors.ByteLevel(trim_offsets=False)]
    )
    assert Tokenizer.from_pretrained(saved(made, tmp_path)).encode("fox") == made.encode("fox").ids


def ranks() -> dict[bytes, int]:
    """Ranks as tiktoken has them, out of a vocabulary learnt above."""
    back = {character: byte for byte, character in enumerate(rank_file.byte_spelling())}
    vocabulary = json.loads(theirs("gpt2").to_str())["model"]["vocab"]
    pieces = sorted(vocabulary, key=vocabulary.__getitem__)
    tokens = [bytes(back[character] for character in piece) for piece in pieces if piece != END]
    return {token: rank for rank, token in enumerate(tokens)}


def write_ranks(path: Path, content: dict[bytes, int]) -> Path:
    lines = [f"{base64.b64encode(token).decode()} {rank}" for token, rank in content.items()]
    path.write_text("\n".join(lines) + "\n\n")
    return path


RANK_PATTERNS = {
    "gpt2": rank_file._GPT2,
    "cl100k": rank_file._CL100K,
    **{name: stages.REGEXES[name] for name in ("llama3", "qwen2", "o200k")},
}


@pytest.mark.parametrize("pattern", RANK_PATTERNS)
def test_rank_files_give_the_ids_of_tiktoken(pattern: str, tmp_path: Path) -> None:
    tiktoken = pytest.importorskip("tiktoken")
    path = write_ranks(tmp_path / "some.tiktoken", ranks())
    ours = Tokenizer.from_rank_file(path, pattern)
    by_text = Tokenizer.from_rank_file(path, RANK_PATTERNS[pattern])
    assert by_text.fingerprint == ours.fingerprint
    theirs_ = tiktoken.Encoding(
        "x",
        pat_str=RANK_PATTERNS[pattern],
        mergeable_ranks=ranks(),
        special_tokens={END: len(ranks())},
    )
    chance = random.Random(1)
    texts = ["".join(chance.choice(PARTS) for _ in range(300)) for _ in range(60)]
    for text in [*texts, *corpus()[:10], "x  \n  ", "\n  ", ""]:
        assert ours.encode(text) == theirs_.encode_ordinary(text)
    assert ours.eos_id == ours.bos_id == len(ranks())
    ours.save_pretrained(tmp_path)
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in texts:
        assert list(loaded(text)["input_ids"]) == ours.encode(text, parse_special=True)
    assert Tokenizer.from_pretrained(tmp_path).encode(texts[0]) == ours.encode(texts[0])


def test_special_tokens_of_rank_files(tmp_path: Path) -> None:
    path = write_ranks(tmp_path / "x", ranks())
    size = len(ranks())
    listed = Tokenizer.from_rank_file(path, "llama3", ["<|begin_of_text|>", "<|end_of_text|>"])
    assert (listed.bos_id, listed.eos_id) == (size, size + 1)
    spread = Tokenizer.from_rank_file(
        path, "gpt2", {"<|a|>": size + 6, "<|b|>": size + 9}, eos_token="<|b|>"
    )
    assert spread.vocab_size == size + 10 and (spread.bos_id, spread.eos_id) == (None, size + 9)
    assert spread.pieces([size, size + 6]) == [f"<|unused_{size}|>", "<|a|>"]
    none = Tokenizer.from_rank_file(path, "gpt2", [])
    assert none.vocab_size == size and none.eos_id is None
    for wrong, message in [
        ({"<|a|>": 3}, "has the id 3, which is another's"),
        ({"<|a|>": 99999}, "out of bounds"),
        ({" the": 500}, "is a token of the ranks too"),
    ]:
        with pytest.raises(ConfigError, match=message):
            Tokenizer.from_rank_file(path, "gpt2", wrong)
    with pytest.raises(ConfigError, match="bos_token is '<|c|>', which is none of"):
        Tokenizer.from_rank_file(path, "gpt2", bos_token="<|c|>")
    with pytest.raises(ConfigError, match=r"'\\w\+' is unknown; expected one of llama3"):
        Tokenizer.from_rank_file(path, r"\w+")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("IQ== 0\nIg==", "line 2: .* is not a token in base64 and its rank"),
        ("IQ== 0\n*** 1", "line 2"),
        ("IQ== 0\nIQ== 1", r"line 2: the token b'!' is empty, there twice"),
        ("IQ== 0\nIg== 0", "not all different"),
        ("\n", "is empty"),
        ("IQ== 0\nIg== 1", "no piece for the byte ' '"),
    ],
)
def test_broken_rank_files_are_named(lines: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.tiktoken"
    path.write_text(lines)
    with pytest.raises(DataError, match=message):
        Tokenizer.from_rank_file(path, "gpt2")
    with pytest.raises(DataError, match="the rank file cannot be read: No such file"):
        Tokenizer.from_rank_file(tmp_path / "none", "gpt2")


def test_a_gpt2_directory_loads_with_its_tokenizer(tmp_path: Path) -> None:
    from omnima import Model

    config = transformers.GPT2Config(
        vocab_size=len(ranks()) + 2,
        n_positions=32,
        n_embd=16,
        n_layer=1,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path)
    saved(theirs("gpt2"), tmp_path, bos_token=END)
    model = Model.from_pretrained(tmp_path)
    assert model.tokenizer is not None and model.tokenizer.eos_id == 0
    assert model.generate("the fox", max_new_tokens=3, temperature=0.0).new_tokens
    model.save_pretrained(tmp_path / "again")
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path / "again")
    text = "the fox's 12 FOXES\n"
    assert list(loaded(text)["input_ids"]) == model.tokenizer.encode(text)
