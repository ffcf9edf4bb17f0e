"""Learns pieces from text: BPE and unigram with sentencepiece, characters and bytes by itself."""

from __future__ import annotations

import io
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from omnima.errors import ConfigError, DataError
from omnima.tokenizers.corpus import Sample, checked, read_alphabet, read_lines, show_layout
from omnima.tokenizers.description import (
    BYTE_PIECES,
    WORD_PATTERN,
    Description,
    Kind,
    all_merges,
    build,
    special_pieces,
)

MIN_AUTO_SIZE, MAX_SIZE = 512, 65536
_SPACE = "\u2581"  # how SentencePiece writes a space
# Every character of "<0x41>" is a piece of a unigram vocabulary, so that such text is never read
# as a byte token.
_BYTE_NAME_CHARACTERS = "<>x0123456789ABCDEF"
# Score of the byte and special tokens: far below any sum that text could have instead.
_CONTROL_SCORE = -1000.0
# Scores are rounded to multiples of this, so that sums are exact and equal cuts tie in the same
# way everywhere.
_SCORE_STEP = 2.0**-12
# fixed: the sums of unigram training depend on it, and the same corpus must give the same tokenizer
_THREADS = 8


def choose_vocab_size(corpus_bytes: int) -> int:
    """Return the power of two nearest to the square root of the corpus's bytes, from 512 to 65536.

    Examples
    --------
    >>> choose_vocab_size(1_000_000), choose_vocab_size(1_000_000_000)
    (1024, 32768)
    """
    power = round(math.log2(max(corpus_bytes, 1)) / 2)
    return min(max(1 << power, MIN_AUTO_SIZE), MAX_SIZE)


def train(
    documents: Iterable[str],
    kind: Kind,
    vocab_size: int | None,
    user_tokens: Sequence[str],
    *,
    split_digits: bool,
    character_coverage: float,
    max_training_bytes: int,
    code: bool = False,
) -> Description:
    """Learn a tokenizer; see ``Tokenizer.train``."""
    if code and kind != "bpe":
        raise ConfigError(f"code goes with kind 'bpe', not '{kind}'; leave one of the two out")
    specials = special_pieces(kind, user_tokens)
    if kind == "word":
        return _words(documents, specials, vocab_size)
    if kind in ("char", "byte"):
        if vocab_size is not None:
            raise ConfigError(
                f"vocab_size={vocab_size} does not go with kind '{kind}': its size follows from the"
                f" {'characters of the corpus' if kind == 'char' else '256 bytes'}; leave"
                " vocab_size out"
            )
        alphabet = sorted(read_alphabet(documents).alphabet) if kind == "char" else []
        return build(kind, specials, alphabet)
    if vocab_size is not None and not len(specials) + 256 < vocab_size <= MAX_SIZE:
        raise ConfigError(
            f"vocab_size={vocab_size} is out of bounds: {len(specials)} special and 256 byte"
            " tokens come first, so"
            f" expected {len(specials) + 257} to {MAX_SIZE}"
        )
    sample = read_lines(documents, specials, max_training_bytes, code)
    if not any(sample.lines):
        raise DataError(
            "the corpus holds nothing but control characters; a tokenizer needs some text to"
            " learn from"
        )
    learner_of = _CodeLearner if code else _Learner
    learner = learner_of(kind, len(specials), split_digits, character_coverage)
    learnt = (
        learner.run_auto(sample) if vocab_size is None else learner.run(sample.lines, vocab_size)
    )
    if kind == "bpe":
        return _bpe(specials, [piece for piece, _ in learnt])
    return _unigram(specials, learnt)


class _Learner:
    """Train SentencePiece with the options under which every piece means its own text."""

    def __init__(
        self, kind: Kind, specials: int, split_digits: bool, character_coverage: float
    ) -> None:
        self.kind, self.specials = kind, specials
        self.split_digits, self.character_coverage = split_digits, character_coverage

    def run_auto(self, sample: Sample) -> list[tuple[str, float]]:
        """Train at the size that the corpus suggests; bend to what it allows."""
        size = choose_vocab_size(sample.bytes)
        while True:
            try:
                return self.run(sample.lines, size)
            except _SizeError as error:
                size = (
                    error.nearest
                    if error.too_high
                    else 2 ** math.ceil(math.log2(2 * error.nearest))
                )

    def run(self, lines: Sequence[str], vocab_size: int) -> list[tuple[str, float]]:
        """Return the text pieces with their scores, best first."""
        import sentencepiece

        extra = list(_BYTE_NAME_CHARACTERS) if self.kind == "unigram" else []
        model = io.BytesIO()
        hidden = self.specials - 1  # SentencePiece sees one of our specials, its own <unk>
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter([*lines, *extra]),
                model_writer=model,
                model_type=self.kind,
                vocab_size=vocab_size - hidden,
                normalization_rule_name="identity",
                byte_fallback=True,
                add_dummy_prefix=False,
                remove_extra_whitespaces=False,
                allow_whitespace_only_pieces=True,
                split_by_whitespace=True,
                split_digits=self.split_digits,
                character_coverage=self.character_coverage,
                required_chars="".join(extra),
                max_sentence_length=1 << 16,
                unk_id=0,
                bos_id=-1,
                eos_id=-1,
                pad_id=-1,
                num_threads=_THREADS,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise _explained(str(error), vocab_size, hidden) from None
        processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
        ids = range(1 + len(BYTE_PIECES), processor.get_piece_size())
        return [
            (processor.id_to_piece(i).replace(_SPACE, " "), processor.get_score(i)) for i in ids
        ]


class _CodeLearner(_Learner):
    """Learn from text whose layout is written as symbols, and write it as itself again."""

    def run(self, lines: Sequence[str], vocab_size: int) -> list[tuple[str, float]]:
        """Ask for more pieces until so many are different: a space has two spellings there."""
        asked = vocab_size
        while True:
            try:
                found = super().run(lines, asked)
            except _SizeError as error:
                if not error.too_high:
                    raise
                asked, found = error.nearest, super().run(lines, error.nearest)
                largest = asked - (len(found) - len(self._different(found)))
                if largest < vocab_size:
                    raise _too_high(vocab_size, largest) from None
            learnt = self._different(found)
            wanted = len(found) - (asked - vocab_size)
            if len(learnt) >= wanted:
                return self._first(list(learnt.items()), wanted)
            asked += wanted - len(learnt)

    @staticmethod
    def _different(found: list[tuple[str, float]]) -> dict[str, float]:
        learnt: dict[str, float] = {}
        for piece, score in found:
            learnt.setdefault(show_layout(piece), score)
        return learnt

    @staticmethod
    def _first(learnt: list[tuple[str, float]], wanted: int) -> list[tuple[str, float]]:
        """Leave out the pieces that were learnt last; characters stay."""
        spare = len(learnt) - wanted
        merged = [piece for piece, _ in learnt if len(piece) > 1]
        dropped = set(merged[len(merged) - spare :])
        return [entry for entry in learnt if entry[0] not in dropped]


class _SizeError(ConfigError):
    """A vocabulary size that the corpus cannot give, with the nearest one that it can."""

    def __init__(self, text: str, nearest: int, too_high: bool) -> None:
        super().__init__(text)
        self.nearest, self.too_high = nearest, too_high


def _too_high(vocab_size: int, nearest: int) -> _SizeError:
    return _SizeError(
        f"vocab_size={vocab_size} is more than this corpus can fill: the largest size is {nearest};"
        " give more text, a smaller size, or leave vocab_size out",
        nearest,
        True,
    )


def _explained(text: str, vocab_size: int, hidden: int) -> Exception:
    if high := re.search(r"too high.*<= (\d+)", text):
        return _too_high(vocab_size, int(high[1]) + hidden)
    if low := re.search(r"smaller than required_chars\. \d+ vs (\d+)", text):
        nearest = int(low[1]) + hidden
        return _SizeError(
            f"vocab_size={vocab_size} is less than the characters of this corpus need: the"
            " smallest size is"
            f" {nearest}; choose more, lower character_coverage, or leave vocab_size out",
            nearest,
            False,
        )
    return DataError(f"sentencepiece could not learn from this corpus: {text}")


def _words(
    documents: Iterable[str], specials: Sequence[str], vocab_size: int | None
) -> Description:
    """Take the most frequent words, equally frequent ones by their text."""
    from omnima._core import split_text

    counts: Counter[str] = Counter()
    sample = Sample()
    for document in checked(documents, sample):
        counts.update(split_text(WORD_PATTERN, document))
    for special in specials:
        counts.pop(special, None)
    size = min(choose_vocab_size(sample.bytes), len(specials) + len(counts))
    if vocab_size is not None:
        low, high = len(specials) + 1, len(specials) + len(counts)
        if not low <= vocab_size <= high:
            raise ConfigError(
                f"vocab_size={vocab_size} is out of bounds: with {len(specials)} special tokens and"
                f" the {len(counts)} words of this corpus, expected {low} to {high}"
            )
        size = vocab_size
    words = sorted(counts, key=lambda word: (-counts[word], word))[: size - len(specials)]
    return build("word", specials, words)


def _bpe(specials: Sequence[str], text_pieces: Sequence[str]) -> Description:
    offset = len(specials) + len(BYTE_PIECES)
    ids = {piece: position + offset for position, piece in enumerate(text_pieces)}
    return build("bpe", specials, text_pieces, merges=all_merges(ids))


def _unigram(specials: Sequence[str], learnt: Sequence[tuple[str, float]]) -> Description:
    controls = [_CONTROL_SCORE] * (len(specials) + len(BYTE_PIECES))
    scores = [round(score / _SCORE_STEP) * _SCORE_STEP for _, score in learnt]
    return build("unigram", specials, [piece for piece, _ in learnt], scores=[*controls, *scores])
