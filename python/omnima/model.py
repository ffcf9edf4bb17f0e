"""Model: a language model in Python's hands; the C++ core computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from omnima import _core
from omnima._device import check_device
from omnima.config import ModelConfig, model_preset
from omnima.errors import DataError, OmnimaError

if TYPE_CHECKING:
    from omnima.generation import Generation
    from omnima.tokenizers import Tokenizer


class Model:
    """A decoder-only language model.

    Parameters
    ----------
    config
        The shape; see :class:`omnima.ModelConfig`.
    seed
        Of the initial weights: one seed gives the same weights everywhere.
    tokenizer
        Kept beside the model for :meth:`generate` with text and for saving; may be None.
    device
        Where the weights live: ``"cpu"``, ``"cuda"`` or one GPU such as ``"cuda:1"``.

    Examples
    --------
    >>> import omnima, torch
    >>> model = omnima.Model.from_preset("nima", vocab_size=512)
    >>> model(torch.tensor([[1, 2, 3]])).shape
    torch.Size([1, 3, 512])
    """

    def __init__(
        self,
        config: ModelConfig,
        seed: int = 0,
        tokenizer: Tokenizer | None = None,
        device: str = "cpu",
    ) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self._decoder: _core.Decoder | None = _core.Decoder(
            config.core(), seed, check_device(device)
        )

    @property
    def core(self) -> _core.Decoder:
        """The core's decoder."""
        if self._decoder is None:
            raise OmnimaError("This model is closed: its weights are gone. Load or make it anew.")
        return self._decoder

    def close(self) -> None:
        """Free the weights now, whoever still holds the model: a notebook keeps every output.

        Using the model afterwards is an error. Tensors taken from it, losses that were not
        differentiated and a trainer of it keep what they need until they go, too.

        >>> model = Model.from_preset("nima", vocab_size=512)
        >>> model.close()
        """
        self._decoder = None

    @classmethod
    def from_preset(
        cls,
        name: str,
        vocab_size: int | None = None,
        seed: int = 0,
        device: str = "cpu",
        **changes: Any,
    ) -> Model:
        """Make a model of a named shape with fresh weights."""
        return cls(model_preset(name, vocab_size=vocab_size, **changes), seed=seed, device=device)

    @classmethod
    def from_config(
        cls, config: ModelConfig | Mapping[str, Any], seed: int = 0, device: str = "cpu"
    ) -> Model:
        """Make a model of a given shape with fresh weights."""
        fields = config if isinstance(config, ModelConfig) else ModelConfig.from_dict(config)
        return cls(fields, seed=seed, device=device)

    @classmethod
    def from_pretrained(cls, directory: str | Path, device: str = "cpu") -> Model:
        """Load a Hugging Face directory or a GGUF file, with the tokenizer if it has one."""
        from omnima import hub

        check_device(device)
        path, tokenizer = Path(directory), None
        if path.is_file():
            fields, tensors, tokenizer = hub.load_gguf(path)
        else:
            fields, tensors = hub.load_pretrained(path)
        model = cls(ModelConfig.from_dict(fields), tokenizer=tokenizer, device=device)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(tensors[name])
        if (path / "tokenizer.json").is_file():
            from omnima.tokenizers import Tokenizer

            model.tokenizer = Tokenizer.from_pretrained(path)
        return model

    def save_pretrained(self, directory: str | Path, dtype: str = "float32") -> None:
        """Write a Hugging Face directory that transformers loads, with the tokenizer if any."""
        from omnima import hub

        hub.save_pretrained(
            self.config.to_dict(),
            self.named_parameters(),
            directory,
            tokenizer=self.tokenizer,
            dtype=dtype,
        )

    def __call__(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return the logits, float32 ``[batch, time, vocab]``, of int64 ids ``[batch, time]``."""
        return self.core.logits(input_ids)

    def loss(
        self,
        input_ids: torch.Tensor,
        labels: torch.Tensor,
        segments: torch.Tensor | None = None,
        as_trained: bool = False,
    ) -> torch.Tensor:
        """Return the mean cross-entropy in nats; differentiable by autograd.

        Parameters
        ----------
        input_ids
            int64 ``[batch, time]``.
        labels
            int64 ``[batch, time]``, already shifted (``ids[:, 1:]`` for inputs ``ids[:, :-1]``);
            -100 is ignored.
        segments
            int32 ``[batch, time]``: document numbers inside a row; attention does not cross them.
        as_trained
            The loss of a training step instead: with the losses of experts' routers, and what the
            configuration leaves out at random (as drawn from the seed 0).
        """
        return self.core.loss(input_ids, labels, segments, as_trained)

    def named_parameters(self) -> list[tuple[str, torch.Tensor]]:
        """Return pairs of name (Hugging Face's Llama names) and float32 leaf tensor."""
        return self.core.named_parameters()

    @property
    def device(self) -> str:
        """Where the weights live: ``"cpu"``, or a GPU such as ``"cuda:0"``."""
        return str(self.named_parameters()[0][1].device)

    @property
    def num_parameters(self) -> int:
        """Number of parameters; tied ones count once."""
        return self.core.num_parameters()

    @property
    def num_active_parameters(self) -> int:
        """Number of parameters that a token meets: with experts less than there are."""
        return self.config.num_active_parameters

    def generate(self, prompt: str | Sequence[int], **options: Any) -> Generation:
        """Continue a text or token ids; options as in :func:`omnima.generation.generate`."""
        from omnima import generation

        if isinstance(prompt, str) and self.tokenizer is None:
            raise DataError("This model has no tokenizer: give token ids, or set model.tokenizer.")
        return generation.generate(self, self.tokenizer, [prompt], **options)[0]
