"""The curriculum of a run: how hard each document is, and over how many rows the hard ones come in.

A document's score is its length, a number from a file, or the loss of a trained model on it.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from omnima._blocks import blocks_of
from omnima._durable import write_durably
from omnima._places import WAYS, find_model, hub_name, is_gguf
from omnima.data.base import hash_file
from omnima.errors import ConfigError, DataError
from omnima.training.config import TrainConfig

if TYPE_CHECKING:
    from omnima._core import CurriculumOptions
    from omnima.data import TokenData
    from omnima.tokenizers import Tokenizer

Scores = npt.NDArray[np.float64]
Progress = Callable[[int, int], object]  # documents done, of how many

_FORMAT = 1  # of what a model's losses are; another number makes them anew
_BLOCK = 1 << 16  # tokens in one call of the core
_TEXT = 64  # tokens of a document that are turned into text, by the model's context


def curriculum_of(config: TrainConfig, scores: Scores | None) -> CurriculumOptions | None:
    """Return what the loader of a run needs; None without a curriculum.

    It lasts `curriculum_steps`, or half of a budget in steps or epochs.
    """
    if scores is None:
        return None
    import torch

    from omnima._core import CurriculumOptions

    steps = config.curriculum_steps
    if steps is None and config.steps is not None:
        steps = max(1, config.steps // 2)
    return CurriculumOptions(
        scores=torch.from_numpy(scores),
        pacing=config.curriculum_pacing,
        start=config.curriculum_start,
        rows=0 if steps is None else rows_of_steps(config, steps),
        epochs=0.0 if steps is not None or config.epochs is None else config.epochs / 2,
    )


def rows_of_steps(config: TrainConfig, steps: int) -> int:
    """Return the rows of a run's first steps.

    >>> rows_of_steps(TrainConfig(steps=9, batch_size=2, accumulate=3, ramp_steps=4), 5)
    18
    """
    ramp = min(steps, config.ramp_steps)
    batches = (steps - ramp) * config.accumulate + ramp
    if ramp:
        batches += _sum_of_floors(ramp, config.ramp_steps, config.accumulate - 1)
    return batches * config.batch_size


def _sum_of_floors(count: int, divisor: int, factor: int) -> int:
    """Return the sum of factor * i // divisor over i below count, in as many steps as digits."""
    total = rest = 0
    while True:
        total += count * (count - 1) // 2 * (factor // divisor) + count * (rest // divisor)
        factor, rest = factor % divisor, rest % divisor
        reached = factor * count + rest
        if reached < divisor:
            return total
        count, rest = divmod(reached, divisor)
        divisor, factor = factor, divisor


def document_scores(
    curriculum: str,
    data: TokenData,
    tokenizer: Tokenizer,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Scores:
    """Return a number for each training document, in order; the easiest is the lowest.

    Parameters
    ----------
    curriculum
        ``"length"`` (tokens); a file with one number a line for each document of the text, held-out
        ones included, or for the training documents alone; or the directory of a trained model.
        Its score is the mean loss of its first context of tokens: in nats a token where it has the
        tokenizer of the data, else in nats a byte of the text, so that how many tokens a word takes
        does not count.
    data
        The token shards. The losses of a model are kept beside them, under the hashes of the
        tokens and of the model's files, so that they are measured once.
    tokenizer
        That which made the tokens.
    device
        Where the model computes.
    progress
        Called with the documents measured and their number.

    Raises
    ------
    ConfigError
        There is no such file or model, or nothing to order.
    DataError
        The file's numbers do not fit the documents.
    """
    ends = data.document_ends("train")
    if len(ends) < 2:
        raise ConfigError(
            "The training text is a single document, so a curriculum has nothing to order. Cut it "
            "into documents: --document-break names the lines that begin one."
        )
    path = Path(curriculum)
    if curriculum == "length":
        scores = np.diff(ends, prepend=0).astype(np.float64)
    elif path.is_dir() or is_gguf(path) or hub_name(curriculum):
        scores = _losses(find_model(curriculum), data, tokenizer, device, progress)
    elif path.is_file():
        scores = _given(path, data, len(ends))
    else:
        raise ConfigError(
            f"curriculum is {curriculum!r}: neither length, nor a file of scores, nor {WAYS}."
        )
    if (scores == scores[0]).all():
        raise ConfigError(
            f"curriculum {curriculum}: all {len(scores):,} training documents have the score "
            f"{scores[0]:g}, so there is nothing to order. Leave the curriculum out."
        )
    return scores


def fingerprint(scores: Scores) -> str:
    """Return a hash of scores: a run is resumed with those that it was started with."""
    return hashlib.sha256(scores.astype("<f8").tobytes()).hexdigest()


def _given(path: Path, data: TokenData, documents: int) -> Scores:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not a text file: give a file with one number a line."
        ) from error
    if not lines:
        raise DataError(f"{path} is empty: give one number a line, one for each document.")
    scores = np.empty(len(lines))
    for number, line in enumerate(lines, 1):
        try:
            scores[number - 1] = float(line)
        except ValueError:
            raise DataError(f"{path}, line {number}: {line[:40]!r} is not a number.") from None
        if not np.isfinite(scores[number - 1]):
            raise DataError(f"{path}, line {number}: {line.strip()} is not a finite number.")
    if len(scores) == documents:
        return scores
    mask = data.training_mask()
    if mask is not None and len(scores) == len(mask):
        return scores[mask]
    whole = f"{len(mask):,} documents, {documents:,}" if mask is not None else f"{documents:,}"
    raise DataError(
        f"{path} has {len(scores):,} scores, but the text has {whole} for training: give one "
        "number a line, for each document in the order of the text, or for the training "
        "documents alone."
    )


def _losses(
    directory: Path, data: TokenData, tokenizer: Tokenizer, device: str, progress: Progress | None
) -> Scores:
    kept = data.directory / f"losses-{_key(directory, data)}.npy"
    scores = _read_kept(kept, data)
    if scores is None:
        scores = _measure(directory, data, tokenizer, device, progress)
        buffer = io.BytesIO()
        np.save(buffer, scores, allow_pickle=False)
        write_durably(kept, buffer.getvalue())
    return scores


def _key(directory: Path, data: TokenData) -> str:
    """A hash of all that a model's losses depend on: its own files and the tokens."""
    from omnima.hub import open_tokenizer

    weights = (directory / "config.json", *sorted(directory.glob("*.safetensors")))
    files = (directory,) if directory.is_file() else weights
    hashes = {path.name: hash_file(path) for path in files}
    parts = {
        "format": _FORMAT,
        "tokens": data.fingerprint,
        "model": hashes,
        "tokenizer": open_tokenizer(directory).fingerprint,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]


def _read_kept(path: Path, data: TokenData) -> Scores | None:
    """The losses that an earlier run left; None where there are none, or the file is damaged."""
    if not path.exists():
        return None
    try:
        scores = np.load(path, allow_pickle=False)
    except (ValueError, EOFError):
        return None
    fits = scores.shape == data.document_ends("train").shape and scores.dtype == np.float64
    return scores if fits and np.isfinite(scores).all() else None


def _measure(
    directory: Path, data: TokenData, tokenizer: Tokenizer, device: str, progress: Progress | None
) -> Scores:
    import torch

    from omnima import _core
    from omnima.evaluation.directory import open_model

    model, its = open_model(directory, device)
    if not model.config.causal:
        raise ConfigError(
            f"curriculum: {directory} holds a model with causal false, which has no loss of next "
            "tokens to order by. Give the directory of one that writes."
        )
    context = model.context
    documents = len(data.document_ends("train"))
    if its.fingerprint == data.version["tokenizer"]:
        start, items = data.start_id, _as_they_are(data, context)
    else:
        start, end = _borders(its, directory)
        items = _encoded(data, tokenizer, its, end, context)
    scores: list[float] = []
    for arrays, sizes in items:
        sums, tokens = _core.document_losses(
            model.core,
            torch.from_numpy(np.concatenate(arrays).astype(np.int64)),
            torch.from_numpy(np.cumsum([len(each) for each in arrays])),
            start,
        )
        scores += [
            total / max(1, count)
            for total, count in zip(sums, tokens if sizes is None else sizes, strict=True)
        ]
        if progress is not None:
            progress(len(scores), documents)
    found = np.array(scores)
    if not np.isfinite(found).all():
        number = int(np.flatnonzero(~np.isfinite(found))[0]) + 1
        raise DataError(
            f"curriculum: the loss of {directory} on training document {number} is not finite; its "
            "weights are damaged. Give another model."
        )
    return found


Block = tuple[list[npt.NDArray[Any]], "list[int] | None"]


def _spans(data: TokenData, most: int) -> Iterator[list[tuple[int, int]]]:
    """Yield where the training documents begin and end, cut to so many tokens, in blocks."""
    ends: list[int] = data.document_ends("train").tolist()
    spans = ((begin, min(end, begin + most)) for begin, end in zip([0, *ends], ends, strict=False))
    return blocks_of(spans, lambda span: span[1] - span[0], _BLOCK)


def _as_they_are(data: TokenData, context: int) -> Iterator[Block]:
    tokens = data.tokens("train")
    for spans in _spans(data, context):
        yield [tokens[begin:end] for begin, end in spans], None


def _borders(its: Tokenizer, directory: Path) -> tuple[int, int]:
    known = [each for each in (its.bos_id, its.eos_id) if each is not None]
    if not known:
        raise ConfigError(
            f"curriculum: the tokenizer of {directory} has neither a begin nor an end token, so "
            "its model cannot read single documents. Give another model."
        )
    return known[0], known[-1]


def _encoded(
    data: TokenData, tokenizer: Tokenizer, its: Tokenizer, end_id: int, context: int
) -> Iterator[Block]:
    """Yield documents in the tokens of another tokenizer, with the bytes of their text."""
    tokens = data.tokens("train")
    for spans in _spans(data, _TEXT * context):
        texts = [tokenizer.decode(tokens[begin:end]) for begin, end in spans]
        arrays, sizes = [], []
        for text, ids in zip(texts, its.encode_batch(texts), strict=True):
            if len(ids) < context:
                arrays.append(np.append(ids, end_id))
                sizes.append(len(text.encode("utf-8")))
            else:
                arrays.append(ids[:context])
                sizes.append(len(its.decode(ids[:context]).encode("utf-8")))
        yield arrays, sizes
