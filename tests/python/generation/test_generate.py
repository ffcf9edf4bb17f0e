"""Text in, text out: prompts, stop strings, streaming, seeds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnima.errors import ConfigError
from omnima.generation import Generation, generate, stream
from omnima.generation.prompts import encode, seeds
from omnima.generation.text import TextAssembler

from . import models

TOKENIZER = models.ByteTokenizer()
SHORT = {"max_new_tokens": 24, "temperature": 1.0, "top_p": 1.0}


class NoBegin(models.ByteTokenizer):
    bos_id = None


class NoSpecials(NoBegin):
    eos_id = None


@pytest.fixture(scope="module")
def model():
    return models.Model(vocab_size=259)


def assemble(pieces, stop):
    """Feed pieces of text through an assembler; return what it released each time."""

    class Echo:
        def push(self, piece):
            return piece

        def finish(self):
            return ""

    assembler = TextAssembler(Echo(), stop)
    released = []
    for piece in pieces:
        released.append(assembler.push(piece))
        if assembler.stopped:
            break
    released.append(assembler.finish())
    assert assembler.text == "".join(released)
    return assembler, released


def test_a_text_a_row_of_ids_and_lists_of_them(model):
    [one] = generate(model, TOKENIZER, "abc", **SHORT)
    assert isinstance(one, Generation)
    assert one.prompt_tokens == 4 and one.new_tokens == len(one.ids) and one.seconds > 0
    ids = [256, *b"abc"]
    for prompts in (["abc"], ids, [ids]):
        assert [r.ids for r in generate(model, TOKENIZER, prompts, **SHORT)] == [one.ids]
    assert generate(model, TOKENIZER, [], **SHORT) == []


def test_texts_are_the_decoded_ids_without_the_end_token(model):
    for each in generate(model, TOKENIZER, ["abc", "x", "hello"], **SHORT):
        assert each.text == TOKENIZER.decode(each.ids)


def test_without_a_tokenizer_there_are_ids_only(model):
    [each] = generate(model, None, [1, 2, 3], **SHORT)
    assert each.text == "" and each.new_tokens == 24
    with pytest.raises(ConfigError, match="no tokenizer"):
        generate(model, None, "abc")
    with pytest.raises(ConfigError, match="give the tokenizer"):
        generate(model, None, [1], stop="x")


def test_an_end_token_ends_the_text_unless_ignored(model):
    [whole] = generate(model, TOKENIZER, "abc", ignore_eos=True, **SHORT)

    class Ends(models.ByteTokenizer):
        eos_id = whole.ids[5]

    [cut] = generate(model, Ends(), "abc", **SHORT)
    first = whole.ids.index(Ends.eos_id)
    assert cut.ids == whole.ids[: first + 1] and cut.finish_reason == "eos"
    assert cut.text == TOKENIZER.decode(cut.ids[:-1])


def test_a_stop_string_cuts_the_text_before_it(model):
    [whole] = generate(model, TOKENIZER, "abc", **SHORT)
    word = whole.text[3:5]
    pieces = []
    [cut] = generate(model, TOKENIZER, "abc", stop=word, stream=pieces.append, **SHORT)
    assert cut.text == whole.text[: whole.text.index(word)] == "".join(pieces)
    assert cut.finish_reason == "stop" and cut.new_tokens < whole.new_tokens


@given(
    pieces=st.lists(st.text("abc", max_size=4), max_size=12),
    stop=st.lists(st.text("abc", min_size=1, max_size=4), max_size=3),
)
def test_a_stop_string_never_leaks_and_nothing_else_is_lost(pieces, stop):
    assembler, released = assemble(pieces, stop)
    text = "".join(released)
    assert not any(word in text for word in stop)
    whole = "".join(pieces)
    if assembler.stopped:
        assert any(whole.startswith(text + word) for word in stop)
    else:
        assert text == whole


def test_text_is_released_as_soon_as_it_is_sure():
    assert assemble(["a", "b", "x", "c"], ["bcd"])[1] == ["a", "", "bx", "c", ""]


def test_a_stop_string_completed_by_the_last_bytes_counts():
    class Late:
        def push(self, _token):
            return "ab"

        def finish(self):
            return "cd"

    assembler = TextAssembler(Late(), ["bc"])
    assert assembler.push(0) == "a"
    assert assembler.finish() == "" and assembler.stopped


@pytest.mark.parametrize("stop", ["", ["a", ""], [3]])
def test_empty_stop_strings_are_refused(model, stop):
    with pytest.raises(ConfigError, match="stop"):
        generate(model, TOKENIZER, "abc", stop=stop)


def test_pieces_come_with_their_index_for_several_prompts(model):
    heard = ["", ""]

    def hear(piece, index):
        heard[index] += piece

    results = generate(model, TOKENIZER, ["abc", "zz"], stream=hear, **SHORT)
    assert heard == [each.text for each in results]


def test_streaming_gives_the_text_and_no_empty_piece(model):
    [whole] = generate(model, TOKENIZER, "abc", **SHORT)
    pieces = list(stream(model, TOKENIZER, "abc", **SHORT))
    assert "".join(pieces) == whole.text and all(pieces) and len(pieces) > 1


def test_leaving_the_loop_ends_the_writing(model):
    pieces = stream(model, TOKENIZER, "abc", max_new_tokens=80)
    assert next(pieces)
    pieces.close()


def test_errors_come_out_of_the_loop(model):
    with pytest.raises(ConfigError, match="temperature"):
        list(stream(model, TOKENIZER, "abc", temperature=-1.0))


def test_copies_of_a_prompt_differ_and_other_prompts_change_nothing(model):
    texts = [r.ids for r in generate(model, TOKENIZER, ["abc", "x", "abc"], seed=7, **SHORT)]
    assert texts[0] != texts[2]
    for prompt, ids, seed in (("abc", texts[0], 7), ("x", texts[1], 7), ("abc", texts[2], 8)):
        assert generate(model, TOKENIZER, prompt, seed=seed, **SHORT)[0].ids == ids


def test_seeds_are_checked():
    assert seeds([[1], [2], [1]], 3) == [3, 3, 4]
    assert seeds([[1], [1]], [5, 5]) == [5, 5]
    assert seeds([[1]], None) != seeds([[1]], None)
    with pytest.raises(ConfigError, match="2 numbers, but there are 1"):
        seeds([[1]], [1, 2])
    with pytest.raises(ConfigError, match="seed is -1"):
        seeds([[1]], -1)


def test_an_empty_prompt_starts_from_the_begin_or_the_end_token():
    assert encode("", TOKENIZER) == [256]
    assert encode("", NoBegin()) == [257]
    with pytest.raises(ConfigError, match="empty"):
        encode("", NoSpecials())


def test_a_prompt_of_something_else_is_refused(model):
    with pytest.raises(ConfigError, match="text or a list of token ids"):
        generate(model, TOKENIZER, [["a", "b"]])


def test_a_prompt_longer_than_the_context_names_both_numbers(model):
    with pytest.raises(ConfigError, match="201 tokens.*context of 96"):
        generate(model, TOKENIZER, "x" * 200)
