"""Round trips, streaming, special tokens, batches and bad input."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnima.errors import ConfigError, DataError
from omnima.tokenizers import Tokenizer
from omnima.tokenizers.description import Description

any_text = st.one_of(
    st.text(),
    st.text(alphabet=" \n\t▁<0x4A>s/é🦊e\u0301"),
    st.sampled_from(["\tif fox:\r\n", "    <s>", "naïve 我 🦊"]),
)


@settings(max_examples=120, deadline=None)
@given(text=any_text)
def test_decoding_gives_the_text_back(complete: Tokenizer, text: str) -> None:
    assert complete.decode(complete.encode(text)) == text
    ids = complete.encode(text, add_bos=True, add_eos=True)
    assert (ids[0], ids[-1]) == (complete.bos_id, complete.eos_id)
    assert complete.decode(ids) == text
    assert complete.decode(complete.encode(text, parse_special=True), skip_special=False) == text


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_streamed_parts_join_to_the_whole_decode(tokenizer: Tokenizer, data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=40))
    skip = data.draw(st.booleans())
    decoder = tokenizer.stream_decoder(skip_special=skip)
    parts = [decoder.push(i) for i in ids] + [decoder.finish()]
    assert "".join(parts) == tokenizer.decode(ids, skip_special=skip)
    assert decoder.finish() == ""


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=30))
def test_broken_bytes_decode_as_python_replaces_them(
    trained: dict[str, Tokenizer], content: bytes
) -> None:
    tokenizer = trained["byte"]
    first = tokenizer.encode("\x00")[0]
    ids = [first + byte for byte in content]
    assert tokenizer.decode(ids) == content.decode("utf-8", errors="replace")


def test_streaming_never_splits_a_character(complete: Tokenizer) -> None:
    text = "é我🦊 👩‍👩‍👧 日本"
    decoder = complete.stream_decoder()
    parts = [decoder.push(i) for i in complete.encode(text)]
    assert "".join(parts) == text
    assert "\ufffd" not in "".join(parts)
    assert all(text.startswith(so_far) for so_far in accumulate(parts))


def test_batch_equals_one_by_one_on_any_number_of_threads(tokenizer: Tokenizer, story: str) -> None:
    texts = [story[i : i + 97] * (1 + i % 5) for i in range(0, len(story), 3)] * 4 + ["", "x"]
    expected = [tokenizer.encode(text, add_bos=True) for text in texts]
    for threads in (0, 1, 3):
        batch = tokenizer.encode_batch(texts, threads=threads, add_bos=True)
        assert all(ids.dtype == np.int32 for ids in batch)
        assert [ids.tolist() for ids in batch] == expected
    assert tokenizer.encode_batch([]) == []


def test_two_begin_tokens_are_impossible_by_asking(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("<s>the fox</s>", add_bos=True, add_eos=True, parse_special=True)
    assert ids.count(tokenizer.bos_id) == 1 and ids[0] == tokenizer.bos_id
    assert ids.count(tokenizer.eos_id) == 1 and ids[-1] == tokenizer.eos_id
    assert tokenizer.encode("", add_bos=True, add_eos=True) == [tokenizer.bos_id, tokenizer.eos_id]


def test_special_tokens_are_atoms_only_when_asked(tokenizer: Tokenizer) -> None:
    text = "<|user|>hi<|user<|assistant|></s>"
    user, assistant = (tokenizer.special_tokens[token] for token in ("<|user|>", "<|assistant|>"))
    asked = tokenizer.encode(text, parse_special=True)
    assert asked[0] == user and asked[-2:] == [assistant, tokenizer.eos_id]
    control = set(tokenizer.special_tokens.values()) - {tokenizer.unknown_id}
    assert not control & set(tokenizer.encode(text))
    assert not tokenizer.encode_batch([text])[0].tolist() == asked


def test_ids_of_the_special_tokens(tokenizer: Tokenizer) -> None:
    assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id) == (0, 1, 2)
    assert tokenizer.special_tokens["<|user|>"] == 3
    assert tokenizer.pieces([0, 1, 2]) == ["<pad>", "<s>", "</s>"]
    assert tokenizer.decode([0, 1, 2, 3]) == ""
    assert tokenizer.decode([1, 3], skip_special=False) == "<s><|user|>"


def test_pieces_spell_the_text(trained: dict[str, Tokenizer]) -> None:
    tokenizer = trained["bpe"]
    pieces = tokenizer.pieces(tokenizer.encode("the fox\n"))
    assert "".join(pieces) == "the fox<0x0A>"
    assert " fox" in pieces


def test_unknown_characters_of_a_char_tokenizer_show(
    trained: dict[str, Tokenizer], story: str
) -> None:
    tokenizer = trained["char"]
    assert tokenizer.decode(tokenizer.encode("fox Ω!")) == "fox \ufffd!"
    assert tokenizer.encode("ΩΩ") == [tokenizer.unknown_id] * 2
    assert tokenizer.vocab_size == 4 + 2 + len(
        set(
            "".join(
                [
                    story,
                    story.upper(),
                    "The river moon garden old tree sees likes fears bear hen fox.",
                ]
            )
        )
    )


def test_a_lone_surrogate_is_named_with_its_position(tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match=r"invalid Unicode at position 3.*'\\ud800'"):
        tokenizer.encode("abc\ud800")
    with pytest.raises(DataError, match="text 1: invalid Unicode at position 1"):
        tokenizer.encode_batch(["good", "a\udfff"])


def test_what_is_not_text_is_a_type_error(tokenizer: Tokenizer) -> None:
    with pytest.raises(TypeError, match="expected text"):
        tokenizer.encode(b"bytes")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"expected text \(str\), got int"):
        tokenizer.encode_batch(["a", 3])  # type: ignore[list-item]


@pytest.mark.parametrize("bad", [-1, 100_000, 2**40])
def test_ids_outside_of_the_vocabulary_are_named(tokenizer: Tokenizer, bad: int) -> None:
    with pytest.raises(DataError, match=f"token id {bad} at position 1 is outside"):
        tokenizer.decode([0, bad])
    with pytest.raises(DataError, match=f"token id {bad} at position 0"):
        tokenizer.pieces([bad])
    with pytest.raises(DataError, match=f"token id {bad} is outside"):
        tokenizer.stream_decoder().push(bad)


def test_ids_of_any_whole_number_array_are_taken(tokenizer: Tokenizer) -> None:
    import torch

    ids = tokenizer.encode("the fox")
    for form in (tuple(ids), np.array(ids, np.uint16), torch.tensor(ids)):
        assert tokenizer.decode(form) == "the fox"
    assert tokenizer.decode([]) == ""
    for wrong in ([0.5], [[1, 2]], ["a"]):
        with pytest.raises(DataError, match="one row of whole numbers"):
            tokenizer.decode(wrong)


def test_padding_equal_to_end_is_refused(trained: dict[str, Tokenizer]) -> None:
    parts = vars(trained["byte"].description) | {"pad": 2}
    with pytest.raises(ConfigError, match="never learn to stop"):
        Tokenizer(Description(**parts))


def test_it_describes_itself(trained: dict[str, Tokenizer]) -> None:
    assert repr(trained["bpe"]) == "Tokenizer(kind='bpe', vocab_size=640)"
    assert len(trained["bpe"]) == len(trained["bpe"].core) == 640
    assert [trained[kind].kind for kind in trained] == ["bpe", "unigram", "char", "byte"]


def test_bytes_of_tokens_join_to_the_text(complete: Tokenizer) -> None:
    text = "to be é 日本 🙂\n\x00"
    known = complete.core.token_bytes()
    assert b"".join(known[i] for i in complete.encode(text)) == text.encode()
    assert len(known) == complete.vocab_size and known[complete.eos_id or 0] == b"</s>"
