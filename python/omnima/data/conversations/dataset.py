"""Samples of conversations split for training and validation, and loaders over them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from omnima.data.base import OnError, hash_file
from omnima.data.conversations.encoding import CUT, DROP, Encoder, Sample
from omnima.data.conversations.reading import Reading, read_examples
from omnima.data.split import SPLITS
from omnima.errors import ConfigError, DataError
from omnima.tokenizers.padding import end_of_reading

if TYPE_CHECKING:
    from omnima._core import SampleLoader
    from omnima.tokenizers import Tokenizer

Form = Literal["turns", "pairs", "judged", "scored"]
FORMS = get_args(Form)
_LOOK_BACK = 100  # samples, for one that was asked something else


class ConversationData:
    """Samples in memory, as `open_conversations` makes them.

    Attributes
    ----------
    train_tokens, val_tokens : int
        Tokens of each side, learned or not.
    train_supervised, val_supervised : int
        Of these, how many are learned.
    train_samples, val_samples : int
        How many samples there are.
    notes : list of str
        What was found, changed and left out, as sentences.
    packed : bool
        Whether several samples share a row.
    form : str
        ``"turns"``: samples of their own. Otherwise two stand side by side. ``"pairs"``: two
        answers to the same, the better one first. ``"judged"``: an answer, and the same question
        with the answer to another one, whose likelihood tells how far a model went. ``"scored"``:
        pairs, of which a reward model reads all up to the last token; that place alone is marked.
    """

    entropy_floor = None  # nobody knows what people may say
    train_bytes = val_bytes = 0  # bits a byte are of whole texts, not of answers alone

    def __init__(
        self,
        samples: Sequence[Sample],
        tokenizer: Tokenizer,
        context: int,
        *,
        val_fraction: float = 0.05,
        seed: int = 0,
        packed: bool = True,
        form: Form = "turns",
        files: Sequence[Path] = (),
        notes: Sequence[str] = (),
    ) -> None:
        if not 0 <= val_fraction < 1:
            raise ConfigError(f"val_fraction is {val_fraction}; expected 0 <= val_fraction < 1")
        if not samples:
            raise DataError(f"no sample is left to learn from. {' '.join(notes)}".strip())
        self.tokenizer, self.context = tokenizer, context
        self.form: Form = form
        self.packed = packed and form == "turns"
        self.notes = list(notes)
        #: Fields of the core's options of a step that these samples ask for.
        self.step_options: dict[str, str | float] = {}
        #: Of pairs: each side's summed losses by the model that a run begins with.
        self.references: dict[str, list[float]] = {}
        held_out = _held_out(samples, val_fraction, seed, form)
        sides = {
            "train": [each for each, out in zip(samples, held_out) if not out],
            "val": [each for each, out in zip(samples, held_out) if out],
        }
        counts = {name: _counts(side) for name, side in sides.items()}
        self.train_samples, self.train_tokens, self.train_supervised = counts["train"]
        self.val_samples, self.val_tokens, self.val_supervised = counts["val"]
        if form == "judged":
            sides = {name: _with_others(side, context) for name, side in sides.items()}
        if form == "scored":
            sides = {name: _at_ends(side, tokenizer.pad_id) for name, side in sides.items()}
        self.samples: dict[str, list[Sample]] = sides
        self.fingerprint = _fingerprint(self.samples)
        states = [(str(p), p.stat().st_size, p.stat().st_mtime_ns, hash_file(p)) for p in files]
        hashes = "\n".join(state[3] for state in states)
        self.manifest = {"source": "conversations", "files": states}
        self.version = {
            "data": hashlib.sha256(hashes.encode()).hexdigest() if files else None,
            "cleaning": None,
            "tokenizer": tokenizer.fingerprint,
            "tokens": self.fingerprint,
        }

    @property
    def rows_each(self) -> int:
        """Rows that one of a batch takes: two of pairs and of judged answers."""
        return 1 if self.form == "turns" else 2

    def shape(self, rows: int, time: int) -> tuple[int, int]:
        """Return rows and tokens of the largest batch that `loader` makes of these."""
        longest = max(len(each.ids) for side in self.samples.values() for each in side) - 1
        return rows * self.rows_each, time if self.packed else min(time, longest)

    @property
    def rows_an_epoch(self) -> float | None:
        """How many of a batch visit the training side once; None: as its tokens fill rows."""
        return None if self.packed else len(self.samples["train"]) / self.rows_each

    def loader(
        self,
        split: Literal["train", "val"],
        rows: int,
        time: int,
        seed: int = 0,
        *,
        sequential: bool = False,
        objective: object = None,
        **_: object,
    ) -> SampleLoader:
        """A C++ loader of batches ``[rows, time]``; the training loop asks all data in this form.

        Parameters
        ----------
        split : {"train", "val"}
            The side of the split.
        rows, time : int
            Shape of a batch. Unpacked rows are shorter where the batch's longest sample is. Of
            pairs and judged answers there are so many, with two rows each.
        seed : int
            The order is a function of (seed, epoch, position) alone.
        sequential : bool
            Every row once, in order, then the end (for evaluation).
        objective : object
            None: what is learned of samples was decided when they were made.
        """
        import torch

        from omnima._core import SampleLoader

        if split not in SPLITS:
            raise ConfigError(f'split is {split!r}; expected "train" or "val"')
        if objective is not None:
            raise ConfigError("samples of conversations are learned by their next tokens only.")
        samples = self.samples[split]
        if not samples:
            raise DataError(f"the {split} split is empty: give more data, or another val_fraction.")
        ends = np.cumsum([len(each.ids) for each in samples])
        pad = self.tokenizer.pad_id
        loader = SampleLoader(
            ids=torch.tensor([i for each in samples for i in each.ids], dtype=torch.int32),
            supervised=torch.tensor(
                [i for each in samples for i in each.supervised], dtype=torch.uint8
            ),
            ends=torch.from_numpy(ends),
            rows=rows * self.rows_each,
            time=time,
            seed=seed,
            packed=self.packed,
            sequential=sequential,
            paired=self.form != "turns",
            pad_id=0 if pad is None else pad,
            good=[int(each.good is True) for each in samples] if self.form == "judged" else [],
        )
        if split in self.references:
            loader.set_reference(self.references[split])
        return loader


def open_conversations(
    data: str | Path | Sequence[str | Path],
    tokenizer: Tokenizer,
    context: int,
    *,
    val_fraction: float = 0.05,
    seed: int = 0,
    packed: bool = True,
    form: Form = "turns",
    too_long: str = CUT,
    on_error: OnError = "raise",
) -> ConversationData:
    """Read files of conversations, and encode them with the tokenizer's chat template.

    Parameters
    ----------
    data
        What :func:`read_examples` takes.
    tokenizer
        With a chat template; prompts and completions as plain texts need none.
    context
        Tokens of a row. Longer samples are cut or dropped.
    val_fraction
        Share of the samples that is held out, those with equal prompts together.
    seed
        Of the split.
    packed
        Put several samples into a row; they cannot see each other.
    form
        ``"turns"``: conversations. ``"pairs"``: pairs of answers (``chosen``, ``rejected``).
        ``"judged"``: answers with a ``label``, or pairs. ``"scored"``: pairs for a reward model,
        which reads their ends: those longer than the context are dropped.
    too_long
        ``"cut"`` or ``"drop"``.
    on_error
        ``"raise"`` for a broken record, or ``"skip"``.

    Raises
    ------
    DataError
        Names file and line of what is broken or cannot be learned.
    """
    reading = read_examples(data, on_error)
    if form == "scored":  # the last token is read, too
        encoder = Encoder(tokenizer, context - 1, DROP)
    else:
        encoder = Encoder(tokenizer, context, too_long)
    if form not in FORMS:
        raise ConfigError(f"form is {form!r}; expected one of {', '.join(FORMS)}")
    samples = encode_all(reading, encoder, form)
    return ConversationData(
        samples,
        tokenizer,
        context,
        val_fraction=val_fraction,
        seed=seed,
        packed=packed,
        form=form,
        files=reading.paths,
        notes=[*reading.sentences(), *encoder.sentences()],
    )


def encode_all(reading: Reading, encoder: Encoder, form: Form = "turns") -> list[Sample]:
    """Return the samples of all examples; broken ones are left out where that is asked."""
    encode = {
        "turns": encoder.encode,
        "pairs": encoder.encode_pair,
        "judged": encoder.encode_judged,
        "scored": encoder.encode_pair,
    }[form]
    samples: list[Sample] = []
    for example in reading:
        try:
            samples += encode(example)
        except DataError as error:
            if reading.on_error == "raise":
                raise
            reading.skipped += 1
            reading.first_error = reading.first_error or str(error)
    return samples


def _held_out(samples: Sequence[Sample], fraction: float, seed: int, form: Form) -> list[bool]:
    """Whether each sample is for validation: by a keyed hash of what comes before its answer."""
    if fraction == 0:
        return [False] * len(samples)
    keys = [_key(sample, seed) for sample in samples]
    if form in ("pairs", "scored"):
        keys[1::2] = keys[0::2]
    different = sorted(set(keys))
    if len(different) < 2:
        return [False] * len(samples)
    count = min(len(different) - 1, max(1, round(fraction * len(different))))
    chosen = set(different[:count])
    return [key in chosen for key in keys]


def _key(sample: Sample, seed: int) -> bytes:
    asked = np.array(sample.asked, dtype="<i4")
    key = seed.to_bytes(8, "little", signed=True)
    return hashlib.blake2b(asked.tobytes(), digest_size=16, key=key).digest()


def _at_ends(samples: Sequence[Sample], pad_id: int | None) -> list[Sample]:
    """Samples whose last token is marked; the mark stands behind it, as labels do."""
    found = []
    for each in samples:
        ids = each.ids[: end_of_reading(each.ids, pad_id)]
        marks = [0] * len(ids) + [1]
        found.append(Sample([*ids, ids[-1]], marks, each.place))
    return found


def _with_others(samples: Sequence[Sample], context: int) -> list[Sample]:
    """Behind each sample its question with the answer of the nearest one before it that was asked
    something else (the first one's is the last).
    """
    found: list[Sample] = []
    for n, sample in enumerate(samples):
        asked = sample.asked
        steps = range(1, min(len(samples), _LOOK_BACK) + 1)
        others = (samples[n - step] for step in steps)
        other = next((each for each in others if each.asked != asked), samples[n - 1])
        first = other.supervised.index(1)
        ids = (asked + other.ids[first:])[: context + 1]
        marks = ([0] * len(asked) + other.supervised[first:])[: context + 1]
        found += [sample, Sample(ids, marks, sample.place)]
    return found


def _counts(samples: Sequence[Sample]) -> tuple[int, int, int]:
    tokens = sum(len(each.ids) for each in samples)
    return len(samples), tokens, sum(each.supervised_tokens for each in samples)


def _fingerprint(sides: dict[str, list[Sample]]) -> str:
    digest = hashlib.sha256()
    for name, samples in sides.items():
        digest.update(f"{name} {len(samples)}\n".encode())
        for each in samples:
            digest.update(f"{len(each.ids)}\n".encode())
            digest.update(np.array(each.ids, dtype="<i4").tobytes())
            digest.update(bytes(each.supervised))
            if each.good is not None:
                digest.update(bytes([each.good]))
    return digest.hexdigest()
