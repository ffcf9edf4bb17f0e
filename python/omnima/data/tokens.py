"""Token shards that are ready: what they hold, the floor of their loss, and loaders over them."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from omnima.data.shards import docs_name, find_damage, read_json, tokens_name
from omnima.data.split import SPLITS, Splitter, sides_of_documents
from omnima.errors import ConfigError, DataError

if TYPE_CHECKING:
    from omnima._core import CurriculumOptions, Loader, ObjectiveOptions
    from omnima.data.base import Source
    from omnima.tokenizers import Tokenizer

MANIFEST = "manifest.json"


class TokenData:
    """Memory-mapped token shards of one corpus, tokenizer and split, as `prepare` makes them.

    Attributes
    ----------
    train_tokens, val_tokens : int
        Tokens of each side; each document's end token is one of them.
    train_bytes, val_bytes : int
        UTF-8 bytes of the text of each side.
    train_documents, val_documents : int
        Documents that end on each side.
    skipped : int
        Bad records left out.
    split : str
        ``"hash"`` or ``"position"``.
    """

    def __init__(
        self, directory: Path, manifest: dict[str, Any], source: Source | None = None
    ) -> None:
        self.directory = directory
        self.manifest = manifest
        self._source = source
        totals = manifest["totals"]
        self.train_tokens: int = totals["train"]["tokens"]
        self.val_tokens: int = totals["val"]["tokens"]
        self.train_bytes: int = totals["train"]["bytes"]
        self.val_bytes: int = totals["val"]["bytes"]
        self.train_documents: int = totals["train"]["documents"]
        self.val_documents: int = totals["val"]["documents"]
        self.skipped: int = manifest["skipped"]
        self.split: str = manifest["split"]
        self.end_id: int = manifest["end_id"]
        self.start_id: int = manifest["start_id"]
        self.vocab_size: int = manifest["vocab_size"]

    @classmethod
    def open(cls, directory: str | Path) -> TokenData:
        """Open shards that `prepare` has finished."""
        manifest = read_json(Path(directory) / MANIFEST)
        if manifest is None or "totals" not in manifest:
            raise DataError(f"{directory} holds no finished token shards; call prepare(…) first.")
        return cls(Path(directory), manifest)

    def _floor(self) -> float | None:
        """Nats that no model can, in expectation, beat on the whole validation split.

        The sum of -log p over its documents, less a correction for the one thing that a model can
        know beyond the grammar: that a document it has seen in training is not in validation. If
        the training documents have the probability M together, the best use of that lowers the
        loss of each held-out document by -log(1 - M), and by no more.
        """
        val, train = self.manifest["totals"]["val"], self.manifest["totals"]["train"]
        if val["log_probability"] is None or train["log_probability"] is None:
            return None
        if self.split != "hash" or not val["tokens"]:
            return None
        seen = min(train["mass"], 1 - 1e-12)
        floor: float = -val["log_probability"] + val["documents"] * math.log1p(-seen)
        return max(0.0, floor)

    @property
    def fingerprint(self) -> str:
        """A sha256 over those of all shard files: other text or another split gives another."""
        digest = hashlib.sha256()
        for record in self.manifest["shards"]:
            for name, file in sorted(record["files"].items()):
                digest.update(f"{name} {file['sha256']}\n".encode())
        return digest.hexdigest()

    @property
    def version(self) -> dict[str, Any]:
        """Hashes of the data, of its cleaning (or None), of the tokenizer, and of the tokens."""
        return {**self.manifest["version"], "tokens": self.fingerprint}

    @property
    def entropy_floor(self) -> float | None:
        """The least loss that is possible on the validation split, in nats a token, or None.

        Counted over `val_tokens`: every token of every document and its end token.
        """
        floor = self._floor()
        return None if floor is None else floor / self.val_tokens

    @property
    def entropy_floor_bits_per_byte(self) -> float | None:
        """The same floor in bits for each UTF-8 byte of the text, or None."""
        floor = self._floor()
        return None if floor is None else floor / math.log(2) / self.val_bytes

    def tokens(self, split: Literal["train", "val"]) -> npt.NDArray[Any]:
        """All ids of a side in order (a memory map when they lie in one shard)."""
        maps = []
        for record in self.manifest["shards"]:
            if record["splits"][self._side(split)]["tokens"]:
                path = self.directory / tokens_name(record["index"], split)
                maps.append(np.memmap(path, dtype=f"<u{self.manifest['width']}", mode="r"))
        if not maps:
            return np.zeros(0, dtype=f"<u{self.manifest['width']}")
        return maps[0] if len(maps) == 1 else np.concatenate(maps)

    def document_ends(self, split: Literal["train", "val"]) -> npt.NDArray[np.int64]:
        """Where each document of a side ends among its `tokens`; the last one ends with them."""
        ends: list[npt.NDArray[Any]] = []
        tokens = 0
        for record in self.manifest["shards"]:
            totals = record["splits"][self._side(split)]
            if totals["documents"]:
                path = self.directory / docs_name(record["index"], split)
                ends.append(np.fromfile(path, dtype="<u8").astype(np.int64) + tokens)
            tokens += totals["tokens"]
        found = np.concatenate([np.zeros(0, dtype=np.int64), *ends])
        # A text that is split by position goes on behind the cut.
        unfinished = tokens > (found[-1] if len(found) else 0)
        return np.append(found, tokens) if unfinished else found

    def training_mask(self) -> npt.NDArray[np.bool_] | None:
        """For each document of the text, in order, whether it (or its beginning) is for training.

        None where the text is not at hand: when these shards were opened without their source.
        """
        if self._source is None:
            return None
        names = ("val_fraction", "seed", "cut")
        splitter = Splitter(*(self.manifest[name] for name in names))
        sides = sides_of_documents(self._source, splitter)
        return np.array([side == 0 for side in sides], dtype=np.bool_)

    def verify(self) -> None:
        """Read every shard whole and compare its sha256.

        Raises
        ------
        DataError
            Naming the first damaged file.
        """
        for record in self.manifest["shards"]:
            if damage := find_damage(self.directory, record, thorough=True):
                raise DataError(f"{damage}; delete {self.directory} and prepare the data again.")

    def loader(
        self,
        split: Literal["train", "val"],
        rows: int,
        time: int,
        seed: int = 0,
        packing: Literal["windows", "documents"] = "windows",
        prefetch: bool = True,
        sequential: bool = False,
        objective: ObjectiveOptions | None = None,
        tokenizer: Tokenizer | None = None,
        dropout: float = 0.0,
        alpha: float | None = None,
        curriculum: CurriculumOptions | None = None,
    ) -> Loader:
        """A C++ loader of batches ``[rows, time]``.

        Parameters
        ----------
        split : {"train", "val"}
            The side of the split.
        rows, time : int
            Shape of a batch; `time` is the context length.
        seed : int
            The order is a function of (seed, epoch, position) alone.
        packing : {"windows", "documents"}
            Equal stretches of the token stream, or whole documents put together in rows, with
            segment numbers that attention must not cross.
        prefetch : bool
            Make batches ahead in a thread of its own.
        sequential : bool
            Every position once, in order, then the end (for evaluation).
        objective : ObjectiveOptions, optional
            What rows ask for, as `omnima.data.objectives.with_tokens` gives it; None: next tokens.
        tokenizer : Tokenizer, optional
            That which made the tokens; with `dropout` or `alpha`, rows are cut anew in every epoch.
        dropout : float
            Probability of leaving out a merge, see `Tokenizer.encode_dropped`. What is drawn is a
            function of (seed, epoch, row). A row keeps its length: the cut has more tokens, and
            those that no longer fit are left out.
        alpha : float, optional
            Cuts are drawn from all cuts instead, see `Tokenizer.encode_sampled`.
        curriculum : CurriculumOptions, optional
            A score for each document, and how fast rows of harder ones come in; see
            `omnima.training.curriculum`.
        """
        import torch

        from omnima._core import CurriculumOptions, Loader, ObjectiveOptions

        if packing not in ("windows", "documents"):
            raise ConfigError(f'packing is {packing!r}; expected "windows" or "documents"')
        shards = []
        for record in self.manifest["shards"]:
            totals = record["splits"][self._side(split)]
            if totals["tokens"]:
                names = (tokens_name(record["index"], split), docs_name(record["index"], split))
                tokens, docs = (str(self.directory / name) for name in names)
                shards.append((tokens, docs, totals["tokens"], totals["documents"]))
        if not shards:
            raise DataError(
                f"the {split} split is empty; prepare the data with "
                f"{'a smaller' if split == 'train' else 'a larger'} val_fraction."
            )
        anew = dropout > 0 or alpha is not None
        return Loader(
            shards=shards,
            width=self.manifest["width"],
            rows=rows,
            time=time,
            seed=seed,
            packing=packing,
            sequential=sequential,
            prefetch=prefetch,
            end_id=self.end_id,
            start_id=self.start_id,
            objective=ObjectiveOptions() if objective is None else objective,
            tokenizer=tokenizer.core if tokenizer is not None and anew else None,
            dropout=dropout,
            alpha=alpha,
            curriculum=CurriculumOptions(scores=torch.zeros(0))
            if curriculum is None
            else curriculum,
        )

    def _side(self, split: str) -> str:
        if split not in SPLITS:
            raise ConfigError(f'split is {split!r}; expected "train" or "val"')
        return split
