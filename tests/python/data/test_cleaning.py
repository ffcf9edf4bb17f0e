"""Steps of cleaning, the recipe that puts them in order, and what is recorded."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnima.data import open_source
from omnima.data.cleaning import RECIPES, Cleaning, clean, clean_once, cleaned_record
from omnima.data.cleaning.personal import luhn
from omnima.data.cleaning.pipeline import STEPS
from omnima.data.cleaning.quality import again_share, repeated_share, top_share
from omnima.data.cleaning.step import Counts
from omnima.data.cleaning.words import split_words
from omnima.errors import ConfigError, DataError, OmnimaError

PROSE = (
    "The old house stood at the end of the lane, and nobody had lived in it since the winter of "
    "the great storm. Children said that a light went from window to window at night."
)


def apply(step: object, *texts: str) -> list[str]:
    return list(Cleaning([step]).apply(texts))


def counted(step: object, texts: list[str], tmp_path: Path) -> tuple[list[str], Counts]:
    cleaning = Cleaning([step])
    cleaning.prepare()
    documents, counts = cleaning.run(iter(texts), tmp_path)
    return list(documents), counts[0]


def test_characters(tmp_path: Path) -> None:
    assert apply("unicode", "e\u0301 ﬁ") == ["é ﬁ"]
    assert apply({"unicode": {"form": "NFKC"}}, "ﬁ½") == ["fi1⁄2"]
    text = "\ufeffa\x07b\r\nc\rd\u200b\u202ee\tf\u2028g👩\u200d🚀"
    out, counts = counted("control", [text, "plain", "\x00"], tmp_path)
    assert out == ["ab\nc\nde\tf\ng👩\u200d🚀", "plain"]
    assert counts.found == {"line ends": 3, "control characters": 5}
    assert counts.changed == 1 and counts.dropped == {"nothing left": 1}
    assert (counts.documents_in, counts.documents_out) == (3, 2)


@given(st.text())
def test_characters_are_clean_after_one_pass(text: str) -> None:
    text = text.encode("utf-8", "ignore").decode()
    once = apply("unicode", *apply("control", text))
    assert apply("unicode", *apply("control", *once)) == once


def test_length(tmp_path: Path) -> None:
    options = {"min_characters": 3, "max_characters": 20, "min_words": 2, "max_words": 3}
    texts = ["ab", "one", "one two", "a b c d", "x" * 21, "你好"]
    out, counts = counted({"length": options}, texts, tmp_path)
    assert out == ["one two"]
    assert counts.dropped == {
        "too few characters": 2,
        "too few words": 1,
        "too many words": 1,
        "too many characters": 1,
    }


def plain_again(words: list[str], count: int) -> float:
    seen: set[tuple[str, ...]] = set()
    covered: set[int] = set()
    for start in range(len(words) - count + 1):
        run = tuple(words[start : start + count])
        if run in seen:
            covered.update(range(start, start + count))
        seen.add(run)
    return sum(len(words[i]) for i in covered) / max(1, sum(map(len, words)))


@given(st.lists(st.sampled_from(["a", "bb", "ccc"]), min_size=1, max_size=30), st.integers(1, 4))
def test_shares_of_repeated_runs_equal_a_plain_count(words: list[str], count: int) -> None:
    split = split_words([" ".join(words)])
    assert again_share(split, count) == pytest.approx(plain_again(words, count))
    grams = [tuple(words[i : i + count]) for i in range(len(words) - count + 1)]
    most = max((grams.count(gram) for gram in grams), default=0)
    sizes = [most * sum(map(len, gram)) for gram in grams if grams.count(gram) == most]
    expected = min(1.0, max(sizes) / sum(map(len, words))) if most > 1 else 0.0
    assert top_share(split, count) == pytest.approx(expected)
    assert again_share(split, count + 1) <= again_share(split, count) + 1e-12


def test_repetition_drops_what_says_the_same_again(tmp_path: Path) -> None:
    lines = PROSE + "\nBuy now!" * 9
    paragraphs = "\n\n".join([PROSE[:70], "x y"] + [PROSE[70:]] * 3).replace(". ", ".\n")
    mantra = "om mani padme hum " * 20
    run = " ".join(f"{PROSE} {number}" for number in range(3))
    out, counts = counted("repetition", [PROSE, lines, paragraphs, mantra, run], tmp_path)
    assert out == [PROSE]
    assert sum(counts.dropped.values()) == 4 and "repeated lines" in counts.dropped
    loose = {"lines": 1, "line_characters": 1, "paragraphs": 1, "paragraph_characters": 1}
    loose |= {"top_ngrams": {}, "repeated_ngrams": {}}
    assert apply({"repetition": loose}, lines, mantra) == [lines, mantra]
    assert repeated_share([]) == (0, 0)


def test_symbols(tmp_path: Path) -> None:
    bad = [
        "|---|---|+++|===|" * 5 + " word",
        "# a # b # c d e f g h",
        "\n".join(f"- item {name}" for name in "abcdefghij"),
        "\n".join(["it goes on and on and on and on and on and on and so it went…"] * 3),
        "12 34 56 78 90 words",
    ]
    out, counts = counted("symbols", [PROSE, *bad, "床前明月光，疑是地上霜。" * 5], tmp_path)
    assert out == [PROSE, "床前明月光，疑是地上霜。" * 5]
    assert len(counts.dropped) == 5


def test_personal_data_is_verified_before_it_is_replaced(tmp_path: Path) -> None:
    found = [
        ("Write to jane.doe+x@mail.example.org.", "Write to <EMAIL>."),
        ("IBAN GB82 WEST 1234 5698 7654 32, please", "IBAN <IBAN>, please"),
        ("card 4111 1111 1111 1111 expires", "card <CARD> expires"),
        ("from 93.184.216.34 and 2606:4700::6810:84e5", "from <IP> and <IP>"),
        ("call +33 6 12 34 56 78 or (555) 123-4567", "call <PHONE> or <PHONE>"),
    ]
    for before, after in found:
        assert apply("personal", before) == [after]
    kept = [
        "user@localhost and a@b",
        "GB82 WEST 1234 5698 7654 33",
        "4111 1111 1111 1112",
        "192.168.0.1, 127.0.0.1, 300.1.1.1, Python 3.11.2, at 10:20:30",
        "1914-1918, 2,000,000, 3.14159, pp. 123-456, 2026-11-21 23:25:35",
        "ISBN 978-3-16-148410-0",
    ]
    assert apply("personal", *kept) == kept
    _, counts = counted("personal", [each for each, _ in found], tmp_path)
    assert counts.found == {"email": 1, "iban": 1, "card": 1, "ip": 2, "phone": 2}
    dropping = {"personal": {"kinds": ["email"], "action": "drop"}}
    assert apply(dropping, "a.b@example.org", "+33 6 12 34 56 78") == ["+33 6 12 34 56 78"]
    assert luhn("79927398713") and not luhn("79927398710")


def test_text_of_evaluations_is_dropped(tmp_path: Path) -> None:
    questions = tmp_path / "eval.jsonl"
    question = "Which of these animals builds a dam of wood and mud across a small river at night?"
    rows = [{"query": question}, {"query": "Too short?"}]
    questions.write_text("\n".join(map(json.dumps, rows)))
    step = {"evaluation": {"files": [str(questions)], "field": "query"}}
    texts = [PROSE, f"{PROSE} {question.upper()} Yes.", "Which of these animals builds a dam?", "a"]
    out, counts = counted(step, texts, tmp_path)
    assert out == [texts[0], texts[2], "a"]
    assert counts.dropped == {"evaluation text": 1}
    assert counts.found == {"matching runs": 5, "evaluation texts too short to match": 1}
    assert apply({"evaluation": {**step["evaluation"], "min_matches": 6}}, texts[1]) == [texts[1]]
    before = Cleaning([step]).fingerprint()
    questions.write_text(json.dumps(rows[0]))
    assert Cleaning([step]).fingerprint() != before


def test_languages(tmp_path: Path) -> None:
    pytest.importorskip("py3langid")
    french = "Le vieux château se trouvait au bout du chemin, et personne n'y habitait plus."
    spanish = "La vieja casa estaba al final del camino y nadie vivía en ella desde el invierno."
    out, counts = counted({"language": {"keep": ["en", "fr"]}}, [PROSE, french, spanish], tmp_path)
    assert out == [PROSE, french]
    assert counts.found == {"en": 1, "fr": 1, "es": 1}
    assert counts.dropped == {"another language": 1}
    sure = {"language": {"keep": ["en"], "min_confidence": 1.0}}
    assert apply(sure, "the") == []
    with pytest.raises(ConfigError, match="'klingon' is unknown"):
        apply({"language": {"keep": ["klingon"]}}, "x")


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([], "a list of steps is expected"),
        ("exact", "a list of steps is expected"),
        (["exakt"], 'step 1: unknown step "exakt". The nearest is "exact"'),
        ([3], "3 is no step"),
        (["exact", {"length": {"min_chars": 3}}], r'step 2 \(length\): unknown option "min_chars"'),
        ([{"exact": {"x": 1}}], "It has no options"),
        ([{"length": {"min_characters": "many"}}], "expected a whole number"),
        ([{"length": {"min_characters": 9, "max_characters": 3}}], "max_characters is 3"),
        ([{"length": 3}], "options are a mapping"),
        ([{"unicode": {"form": "NFX"}}], "form is 'NFX'"),
        ([{"near": {"threshold": 2}}], "threshold is 2; expected 0.3 to 1"),
        ([{"near": {"permutations": 30}}], "multiple of 4"),
        ([{"personal": {"kinds": ["name"]}}], "kind 'name' is unknown"),
        ([{"personal": {"action": "hide"}}], "action is 'hide'"),
        ([{"personal": {"kinds": [3]}}], "expected a list of texts"),
        ([{"repetition": {"top_ngrams": {"two": 1}}}], "a mapping of n to a share"),
        ([{"repetition": {"lines": 3}}], "lines is 3; expected 0 to 1"),
        (["evaluation"], "name the evaluation's files"),
        (["language"], "keep is empty"),
    ],
)
def test_wrong_recipes_are_named(steps: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Cleaning(steps)  # type: ignore[arg-type]


def test_recipes_by_name_and_by_file(tmp_path: Path) -> None:
    for name in RECIPES:
        assert [step.name for step in Cleaning.open(name).steps] == RECIPES[name]
    path = tmp_path / "clean.yaml"
    path.write_text("steps:\n  - control\n  - length: {min_characters: 2}\n")
    cleaning = Cleaning.open(path)
    described = cleaning.described()
    assert described[1]["options"]["min_characters"] == 2
    assert (
        cleaning.fingerprint()
        == Cleaning(["control", {"length": {"min_characters": 2}}]).fingerprint()
    )
    path.write_text("stages: []")
    with pytest.raises(ConfigError, match='unknown key "stages"'):
        Cleaning.open(path)
    with pytest.raises(ConfigError, match="There is no recipe of cleaning 'prosa'"):
        Cleaning.open("prosa")
    assert all(step.meaning for step in STEPS.values())


def lines(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def test_a_cleaned_file_has_its_record(tmp_path: Path) -> None:
    source = open_source(lines(tmp_path / "raw.jsonl", ["one\r\n", "two", "two", "x" * 90]))
    out = tmp_path / "new" / "clean.jsonl"
    seen: list[tuple[int, int]] = []
    recipe = Cleaning(["control", "exact", {"length": {"min_characters": 0, "max_characters": 9}}])
    done = clean(source, recipe, out, lambda *each: seen.append(each))
    assert list(open_source(out).documents()) == ["one\n", "two"]
    record = json.loads((tmp_path / "new" / "clean.jsonl.cleaning.json").read_text())
    assert record == done.record and seen == [(4, 101)]
    assert (record["documents_in"], record["documents_out"], record["bytes_out"]) == (4, 2, 7)
    flow = [(each["step"], each["documents_in"], each["documents_out"]) for each in done.steps]
    assert flow == [("control", 4, 4), ("exact", 4, 3), ("length", 3, 2)]
    assert cleaned_record(out, record["sha256"]) == record
    assert cleaned_record(out, "other") is None
    packed = [clean(source, recipe, tmp_path / f"{n}.jsonl.gz").path.read_bytes() for n in "ab"]
    assert packed[0] == packed[1]
    assert gzip.decompress(packed[0]) == out.read_bytes()
    assert not list(tmp_path.glob("**/.*aside*"))


def test_cleaning_is_done_once(tmp_path: Path) -> None:
    raw = lines(tmp_path / "raw.jsonl", ["one", "one", "two"])
    out = tmp_path / "clean.jsonl"
    clean_once(open_source(raw), "duplicates", out)
    first = out.stat().st_mtime_ns
    clean_once(open_source(raw), "duplicates", out)
    assert out.stat().st_mtime_ns == first
    clean_once(open_source(raw), Cleaning(["exact"]), out)  # another recipe
    second = out.stat().st_mtime_ns
    assert second != first
    lines(raw, ["one", "three"])  # other data
    assert clean_once(open_source(raw), Cleaning(["exact"]), out).record["documents_out"] == 2
    out.write_text('{"text": "damaged"}\n')
    clean_once(open_source(raw), Cleaning(["exact"]), out)
    assert list(open_source(out).documents()) == ["one", "three"]


def test_cleaning_refuses_what_makes_no_sense(tmp_path: Path) -> None:
    raw = lines(tmp_path / "raw.jsonl", ["one", "two"])
    source = open_source(raw)
    with pytest.raises(ConfigError, match=r"ends in \.jsonl"):
        clean(source, "duplicates", tmp_path / "x.txt")
    with pytest.raises(ConfigError, match="is read and would be written"):
        clean(source, Cleaning(["exact"]), raw)
    short = Cleaning([{"length": {"min_characters": 9}}])
    with pytest.raises(DataError, match=r"nothing is left of 2 documents \(length dropped 2\)"):
        clean(source, short, tmp_path / "x.jsonl")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="Cleaning into .* failed"):
        clean(source, Cleaning(["exact"]), tmp_path / "file" / "x.jsonl")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "raw.jsonl"]


def planted(count: int, seed: int = 0) -> tuple[list[str], list[int]]:
    """Documents of random words; and, among them, copies with a word in a hundred changed."""
    chance = random.Random(seed)
    vocabulary = [
        "".join(chance.choices("abcdefghijklmnop", k=chance.randint(2, 8))) for _ in range(5000)
    ]
    texts = [" ".join(chance.choices(vocabulary, k=chance.randint(60, 300))) for _ in range(count)]
    copies = []
    for _ in range(count // 5):
        words = chance.choice(texts[:count]).split()
        for _ in range(max(1, len(words) // 100)):
            words[chance.randrange(len(words))] = chance.choice(vocabulary)
        copies.append(len(texts))
        texts.append(" ".join(words).capitalize() + ".")
    return texts, copies


def jaccard(one: str, other: str, ngram: int) -> float:
    sets = []
    for text in (one, other):
        words = text.lower().replace(".", "").split()
        sets.append({tuple(words[i : i + ngram]) for i in range(len(words) - ngram + 1)})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_planted_near_duplicates_are_found_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("rensa")
    texts, copies = planted(600)
    out, counts = counted("near", texts, tmp_path)
    kept = set(out)
    recall = sum(texts[copy] not in kept for copy in copies) / len(copies)
    assert recall >= 0.95
    assert all(text in kept for text in texts[:600])  # originals stay, no false alarm
    assert counts.dropped["near an earlier one"] == len(texts) - len(out)
    assert out == [text for text in texts if text in kept]  # in order
    again, _ = counted("near", texts, tmp_path)
    assert again == out


def test_signatures_estimate_the_jaccard_similarity_as_datasketch_does() -> None:
    pytest.importorskip("rensa")
    datasketch = pytest.importorskip("datasketch")
    from omnima.data.cleaning.duplicates import signatures

    chance = random.Random(1)
    vocabulary = [f"w{number}" for number in range(3000)]
    mine, theirs, exact = [], [], []
    for share in (0.0, 0.01, 0.03, 0.06, 0.1, 0.2, 0.4):
        words = chance.choices(vocabulary, k=400)
        other = [chance.choice(vocabulary) if chance.random() < share else word for word in words]
        texts = [" ".join(words), " ".join(other)]
        rows, has_words = signatures(texts, 3, 128, 0)
        assert has_words.all()
        mine.append((rows[0] == rows[1]).mean())
        hashes = []
        for text in texts:
            hashed = datasketch.MinHash(num_perm=128)
            parts = text.split()
            for start in range(len(parts) - 2):
                hashed.update(" ".join(parts[start : start + 3]).encode())
            hashes.append(hashed)
        theirs.append(hashes[0].jaccard(hashes[1]))
        exact.append(jaccard(*texts, 3))
    # 128 permutations: a standard error of 0.044 at most; both within three of them.
    assert all(abs(a - b) < 0.133 for a, b in zip(mine, exact))
    assert all(abs(a - b) < 0.133 for a, b in zip(theirs, exact))
    assert mine[0] == 1.0


def test_short_and_wordless_documents_have_near_duplicates_only_of_their_kind() -> None:
    pytest.importorskip("rensa")
    texts = ["One.", "one!", "two", "...", "---", "One two", "one, TWO", "a b c d e f"]
    assert apply("near", *texts) == ["One.", "two", "...", "---", "One two", "a b c d e f"]
    assert apply("near") == []


def test_chains_end_at_the_first_document() -> None:
    pytest.importorskip("rensa")
    words = [f"w{number}" for number in range(200)]
    chain = []
    for start in range(6):
        words[start * 10] = f"new{start}"
        chain.append(" ".join(words))
    assert apply("near", *chain, *reversed(chain)) == chain[:1]


@pytest.mark.parametrize(
    ("module", "step"), [("rensa", "near"), ("py3langid", {"language": {"keep": ["en"]}})]
)
def test_a_missing_library_is_named_before_any_work(
    module: str, step: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from omnima.data.cleaning.language import identifier

    identifier.cache_clear()
    for name in [module, *(each for each in __import__("sys").modules if each.startswith(module))]:
        monkeypatch.setitem(__import__("sys").modules, name, None)
    monkeypatch.setitem(__import__("sys").modules, "py3langid.langid", None)
    source = open_source(lines(tmp_path / "raw.jsonl", ["one"]))
    with pytest.raises(OmnimaError, match=r'pip install "omnima\[data\]"'):
        clean(source, Cleaning([step]), tmp_path / "out.jsonl")
    identifier.cache_clear()
