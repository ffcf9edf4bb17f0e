"""What is learned of a conversation: as arrays, and told apart without colour."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

import omnima


def test_the_view_is_arrays_too(tmp_path: Path) -> None:
    path = tmp_path / "sums.jsonl"
    path.write_text(json.dumps({"prompt": "2+2=", "completion": "<b>4"}))
    tokenizer = omnima.Tokenizer.train(["2+2=4"], "byte")
    view = omnima.inspect(tokenizer, path)
    assert tokenizer.decode(view.ids[view.supervised], skip_special=False) == "<b>4</s>"
    assert view.ids.dtype == np.int64 and view.supervised.dtype == np.bool_
    assert view.supervised.sum() == view.supervised_tokens == 5
    page = view._repr_html_()
    assert page.count("font-weight:bold") == 5 + 1  # the learned ones, and the legend's
    assert "&lt;" in page and "<b>4" not in page
