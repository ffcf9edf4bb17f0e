"""Samples of conversations split for training and validation, and loaders over them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from omnima.data.base import OnError, hash_file
from omnima.data.conversations.encoding import CUT, Encoder, Sample
from omnima.data.conversations.reading import Reading, read_examples
from omnima.data.split import SPLITS
from omnima.errors import ConfigError, DataError

if TYPE_CHECKING:
    from omnima._core import SampleLoader
    from omnima.tokenizers import Tokenizer


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
    paired : bool
        Whether samples 2k and 2k + 1 are two answers to the same, the better one first.
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
        paired: bool = False,
        files: Sequence[Path] = (),
        notes: Sequence[str] = (),
    ) -> None:
        if not 0 <= val_fraction < 1:
            raise ConfigError(f"val_fraction is {val_fraction}; expected 0 <= val_fraction < 1")
        if not samples:
            raise DataError(f"no sample is left to learn from. {' '.join(notes)}".strip())
        self.tokenizer, self.context = tokenizer, context
        self.packed, self.paired = packed and not paired, paired
        self.notes = list(notes)
        #: Fields of the core's options of a step that these samples ask for.
        self.step_options: dict[str, str | float] = {}
        #: Of pairs: each side's summed losses by the model that a run begins with.
        self.references: dict[str, list[float]] = {}
        held_out = _held_out(samples, val_fraction, seed, paired)
        self.samples: dict[str, list[Sample]] = {
            "train": [each for each, out in zip(samples, held_out) if not out],
            "val": [each for each, out in zip(samples, held_out) if out],
        }
        counts = {name: _counts(side) for name, side in self.samples.items()}
        self.train_samples, self.train_tokens, self.train_supervised = counts["train"]
        self.val_samples, self.val_tokens, self.val_supervised = counts["val"]
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
            pairs there are so many, with two rows each.
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
            rows=2 * rows if self.paired else rows,
            time=time,
            seed=seed,
            packed=self.packed,
            sequential=sequential,
            paired=self.paired,
            pad_id=0 if pad is None else pad,
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
    paired: bool = False,
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
    paired
        Read pairs of answers (``chosen``, ``rejected``), not conversations.
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
    encoder = Encoder(tokenizer, context, too_long)
    samples = encode_all(reading, encoder, paired)
    return ConversationData(
        samples,
        tokenizer,
        context,
        val_fraction=val_fraction,
        seed=seed,
        packed=packed,
        paired=paired,
        files=reading.paths,
        notes=[*reading.sentences(), *encoder.sentences()],
    )


def encode_all(reading: Reading, encoder: Encoder, paired: bool = False) -> list[Sample]:
    """Return the samples of all examples; broken ones are left out where that is asked."""
    samples: list[Sample] = []
    for example in reading:
        try:
            samples += encoder.encode_pair(example) if paired else encoder.encode(example)
        except DataError as error:
            if reading.on_error == "raise":
                raise
            reading.skipped += 1
            reading.first_error = reading.first_error or str(error)
    return samples


def _held_out(samples: Sequence[Sample], fraction: float, seed: int, paired: bool) -> list[bool]:
    """Whether each sample is for validation: by a keyed hash of what comes before its answer."""
    if fraction == 0:
        return [False] * len(samples)
    keys = [_key(sample, seed) for sample in samples]
    if paired:
        keys[1::2] = keys[0::2]
    different = sorted(set(keys))
    if len(different) < 2:
        return [False] * len(samples)
    count = min(len(different) - 1, max(1, round(fraction * len(different))))
    chosen = set(different[:count])
    return [key in chosen for key in keys]


def _key(sample: Sample, seed: int) -> bytes:
    asked = sample.ids[: sample.supervised.index(1)]
    key = seed.to_bytes(8, "little", signed=True)
    return hashlib.blake2b(np.array(asked, dtype="<i4").tobytes(), digest_size=16, key=key).digest()


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
    return digest.hexdigest()
