"""The probability of every token: the arrays, and the text that a notebook colours."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
import pytest
import torch

import omnima
from omnima.errors import ConfigError


class Page(HTMLParser):
    """The tags of a page that were opened, what they carry, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.titles: list[str] = []
        self.data = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.titles += [value or "" for name, value in attrs if name == "title"]

    def handle_data(self, data: str) -> None:
        self.data += data


@pytest.fixture(scope="module")
def model() -> omnima.Model:
    tokenizer = omnima.Tokenizer.train(["<script>alert(1)</script>\n\"'&"], "byte")
    made = omnima.Model.from_preset("nima", vocab_size=tokenizer.vocab_size + 3)
    made.tokenizer = tokenizer
    return made


def test_the_numbers_are_those_of_the_softmax(model: omnima.Model) -> None:
    seen = model.token_probabilities("to be", alternatives=3)
    ids = model.tokenizer.encode("to be", add_bos=True)
    chances = torch.softmax(model(torch.tensor([ids]))[0], -1)
    assert seen.ids.tolist() == list(ids) and seen.texts == ("<s>", *"to be")
    assert np.isnan(seen.probabilities[0]) and np.isnan(seen.alternative_probabilities[0]).all()
    assert seen.alternative_ids[0].tolist() == [-1] * 3 and seen.alternative_texts[0] == ("",) * 3
    for place in range(1, len(ids)):
        expected = chances[place - 1]
        assert seen.probabilities[place] == pytest.approx(expected[ids[place]].item())
        best = expected.topk(3)
        assert seen.alternative_ids[place].tolist() == best.indices.tolist()
        np.testing.assert_allclose(
            seen.alternative_probabilities[place], best.values.tolist(), rtol=1e-6
        )
    rows = torch.tensor([ids])
    loss = model.loss(rows[:, :-1], rows[:, 1:].contiguous())
    assert seen.loss == pytest.approx(loss.item(), rel=1e-5)


def test_a_page_holds_text_alone(model: omnima.Model) -> None:
    text = "<script>alert(1)</script>\n\"'&"
    page = Page(model.token_probabilities(text)._repr_html_())
    assert "script" not in page.tags and "br" in page.tags
    assert set(page.tags) == {
        "div", "small", "br", "span", "details", "summary", "table", "tr", "th", "td"
    }  # fmt: skip
    assert len(page.titles) == len(text) + 1 and page.titles[0] == "nothing stands before it"
    assert all("likeliest: “" in title for title in page.titles[1:])


def test_without_colour_it_is_readable_too(model: omnima.Model) -> None:
    seen = model.token_probabilities("ab", alternatives=1)
    page = Page(seen._repr_html_())
    assert page.tags.count("small") == 3  # the probability above each token
    assert page.tags.count("tr") == 4 and "as a table" in page.data
    best = seen.alternative_probabilities[1, 0]
    assert f"{best:.1%}" in page.data or f"{best:.0%}" in page.data


def test_every_probability_has_its_colour() -> None:
    from omnima.notebook.probabilities import _colour

    sure = [0.9, 0.3, 0.1, 0.02, 0.001, float("nan")]
    assert len({_colour(each) for each in sure}) == len(sure)


def test_ids_that_the_tokenizer_lacks_are_called_by_their_number(model: omnima.Model) -> None:
    every = model.config.vocab_size
    seen = model.token_probabilities("ab", alternatives=every)
    assert f"id {every - 1}" in seen.alternative_texts[1]


def test_a_model_without_a_tokenizer_reads_ids() -> None:
    bare = omnima.Model.from_preset("nima", vocab_size=64)
    assert bare.token_probabilities([3, 4]).texts == ("3", "4")


def test_what_cannot_be_is_said(model: omnima.Model) -> None:
    with pytest.raises(ConfigError, match="alternatives is -1"):
        model.token_probabilities("ab", alternatives=-1)
    both = omnima.Model.from_preset("nima", vocab_size=64, causal=False)
    with pytest.raises(ConfigError, match="both sides"):
        both.token_probabilities([1, 2])
