"""How a model leaves: as a directory of Hugging Face, as a GGUF file, onto the hub."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from omnima.config import ModelConfig

if TYPE_CHECKING:
    from omnima import _core
    from omnima.hub import Origin, Pushed
    from omnima.hub.quantized import Quantization
    from omnima.tokenizers import Tokenizer


class Shared(ABC):
    """The part of a model that writes it for others."""

    config: ModelConfig
    tokenizer: Tokenizer | None
    origin: Origin | None
    quantization: Quantization | None

    @abstractmethod
    def named_parameters(self) -> list[tuple[str, torch.Tensor]]:
        """Return pairs of name and tensor; see :class:`omnima.Model`."""

    @property
    @abstractmethod
    def num_parameters(self) -> int:
        """Number of parameters; tied ones count once."""

    @property
    @abstractmethod
    def num_active_parameters(self) -> int:
        """Number of parameters that a token meets."""

    @property
    @abstractmethod
    def core(self) -> _core.Decoder:
        """The core's decoder."""

    def _numbers(self) -> list[tuple[str, torch.Tensor]]:
        """All parameters as numbers, also those that are held in blocks."""
        from omnima import _core
        from omnima.hub.names import expected_shapes

        shapes = expected_shapes(self.config.to_dict())
        return [
            *self.named_parameters(),
            *(
                (name, _core.dequantized(format, blocks, list(shapes[name])))
                for name, format, blocks in self.core.held
            ),
        ]

    @abstractmethod
    def _check_without_adapters(self, what: str) -> None:
        """ConfigError where adapters are in use, which `what` would leave out."""

    def save_pretrained(
        self,
        directory: str | Path,
        dtype: str = "float32",
        *,
        max_shard_size: int | str = "50GB",
        license: str | None = None,
        blocks: bool = True,
    ) -> None:
        """Write a Hugging Face directory that transformers loads, with the tokenizer if any.

        Its README.md is a model card; one that is there and is not ours stays as it is, and so does
        what a user has written into ours outside of its marks.

        Parameters
        ----------
        directory
            Made if absent; see :func:`omnima.hub.save_pretrained`.
        dtype
            "float32", "float16" or "bfloat16".
        max_shard_size
            Bytes of tensors in one file, or a size such as "5GB"; a larger model is split.
        license
            As model hubs name it, such as "apache-2.0". Left out: that of the model that was
            loaded; unknown where it has none.
        blocks
            A quantized model is written as its blocks, which Omnima alone loads; False writes the
            numbers that they stand for.
        """
        from omnima import hub

        self._check_without_adapters("save_pretrained")
        quantization = self.quantization if blocks else None

        config = self.config.to_dict()
        card = hub.card_of(
            config,
            self.num_parameters,
            self.tokenizer,
            active=self.num_active_parameters,
            license=license,
            origin=self.origin,
            quantization=quantization,
        )
        hub.save_pretrained(
            config,
            self._numbers(),
            directory,
            tokenizer=self.tokenizer,
            dtype=dtype,
            max_shard_size=max_shard_size,
            quantization=quantization,
        )
        hub.write_card(directory, card)

    def push_to_hub(
        self,
        repository: str,
        private: bool = False,
        *,
        dtype: str = "float32",
        max_shard_size: int | str = "50GB",
        license: str | None = None,
        message: str = "Upload a model with Omnima",
    ) -> Pushed:
        """Save the model aside and upload it; see :meth:`save_pretrained` and
        :func:`omnima.hub.push`.

        Parameters
        ----------
        repository
            ``owner/name``, made if it is not there.
        private
            Make it private.
        dtype, max_shard_size, license
            As of :meth:`save_pretrained`.
        message
            Of the commit.
        """
        import tempfile

        from omnima import hub

        with tempfile.TemporaryDirectory(prefix="omnima-push-") as aside:
            self.save_pretrained(aside, dtype, max_shard_size=max_shard_size, license=license)
            return hub.push(aside, repository, private, message)

    def save_gguf(
        self, path: str | Path, dtype: str | None = None, about: Mapping[str, str] | None = None
    ) -> None:
        """Write a GGUF file that llama.cpp loads; see :func:`omnima.hub.save_gguf`.

        Without a `dtype` it is f16, and a quantized model is written in the types that hold its
        numbers. The license of a model that was loaded goes into the file, where `about` names
        none.
        """
        from omnima import hub

        self._check_without_adapters("save_gguf")
        terms = self.origin.license if self.origin else None
        if isinstance(terms, str):
            about = {"license": terms, **(about or {})}
        hub.save_gguf(
            self.config.to_dict(),
            self._numbers(),
            path,
            tokenizer=self.tokenizer,
            dtype=dtype or ("f32" if self.quantization else "f16"),
            about=about,
            quantization=None if dtype else self.quantization,
        )
