"""Model: a language model in Python's hands; the C++ core computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from omnima import _core
from omnima._adapting import Adaptable
from omnima._collector import paused
from omnima._device import check_device
from omnima._growth import grown, rows_of
from omnima._looking import Visible
from omnima._sharing import Shared
from omnima.config import ModelConfig, model_preset
from omnima.errors import ConfigError, DataError, OmnimaError
from omnima.tokenizers.growth import with_tokens

if TYPE_CHECKING:
    from omnima.generation import Generation
    from omnima.hub import Origin
    from omnima.hub.quantized import Quantization
    from omnima.hub.stored import LyingModel, StoredModel
    from omnima.quantization import Report
    from omnima.quantization.text import Text
    from omnima.tokenizers import Tokenizer


# Of `from_pretrained`: matrices in blocks, beside which adapters can learn.
_HELD = ("nf4", "int8", "int4", "bf16", "stored")


class Model(Adaptable, Shared, Visible):
    """A decoder-only language model.

    Parameters
    ----------
    config
        The shape; see :class:`omnima.ModelConfig`.
    seed
        Of the initial weights: one seed gives the same weights everywhere. None: no weights are
        drawn, and all must be overwritten before any use.
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
        seed: int | None = 0,
        tokenizer: Tokenizer | None = None,
        device: str = "cpu",
    ) -> None:
        self.config = config
        self.tokenizer = tokenizer
        #: Where a loaded model comes from: its card says it, and those of its copies.
        self.origin: Origin | None = None
        #: The blocks of a quantized model; None: it is none. The parameters hold their numbers, but
        #: for those of `core.held`.
        self.quantization: Quantization | None = None
        self._decoder: _core.Decoder | None = _core.Decoder(
            config.core(), seed, check_device(device)
        )
        self._stored: LyingModel | None = None
        self._begin_without_adapters()

    @property
    def core(self) -> _core.Decoder:
        """The core's decoder."""
        if self._stored is not None:
            raise OmnimaError(
                "This model's weights are as its file stores them, which serves writing alone "
                "(with load_adapter beside adapters). To train, change or save it, load it with "
                'Model.from_pretrained(…, dtype="float32").'
            )
        if self._decoder is None:
            raise OmnimaError("This model is closed: its weights are gone. Load or make it anew.")
        return self._decoder

    @property
    def _carrier(self) -> _core.Decoder:
        if self._stored is None:
            return self.core
        if self._stored.device != "cpu":
            raise ConfigError(
                "Adapters stand beside weights as their file stores them on the CPU alone: load "
                'the model with dtype="float32" here.'
            )
        if self._decoder is None:
            from omnima.quantization.held import is_holdable

            self._decoder = self._stored.carrier(self.config.core(), is_holdable)
        return self._decoder

    def _adapters_changed(self) -> None:
        if self._stored is None:
            return
        in_use = self._carrier.adapters_in_use
        self._stored.engine.use(self._carrier.adapted(in_use) if in_use else None)

    @property
    def engine(self) -> _core.Engine:
        """What writes with the weights as they are now: where they are, or on the CPU where that
        GPU cannot write with a model of this shape (docs/explanation/gpu.md).
        """
        if self._stored is not None:
            return self._stored.engine
        values, device = self.core.config.values(), self.device
        if device != "cpu" and (_core.why_not_on_gpu(values) or not self.core.adapters_merge):
            device = "cpu"
        in_use = self.core.adapters_in_use
        beside = bool(in_use) and device == "cpu"
        named = self.named_parameters() if beside else self._effective_parameters()
        # Parameters that are there already are not copied.
        parameters = {name: each.detach().to(device) for name, each in named}
        formats = {}
        for name, format, blocks in self.core.held:
            if name not in parameters:  # else an adapter was merged into a copy
                parameters[name], formats[name] = blocks, format
        adapters = self.core.adapted(in_use) if beside else None
        return _core.Engine(values, parameters, formats, device=device, adapters=adapters)

    def close(self) -> None:
        """Free the weights now, whoever still holds the model: a notebook keeps every output.

        Using the model afterwards is an error. Tensors taken from it, losses that were not
        differentiated and a trainer of it keep what they need until they go, too.

        >>> model = Model.from_preset("nima", vocab_size=512)
        >>> model.close()
        """
        self._decoder = self._stored = None
        self.quantization = None

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
    def from_pretrained(
        cls,
        directory: str | Path,
        device: str = "cpu",
        *,
        dtype: str = "float32",
        activations: str = "float32",
        revision: str | None = None,
        strict: bool = False,
    ) -> Model:
        """Load a model, with the tokenizer if it has one.

        Parameters
        ----------
        directory
            A Hugging Face directory, a GGUF file, or a name on the Hugging Face hub
            (``owner/name``, ``owner/name@revision``, ``owner/name/FILE.gguf``), which is fetched
            into the hub's cache; ``HF_HUB_OFFLINE=1`` takes what lies there. What is there as a
            directory or file is never sought on the hub.
        device
            Where the weights shall live.
        dtype
            ``"float32"`` can do all. The others serve writing alone, with adapters beside them that
            were trained elsewhere: ``"auto"`` leaves the weights in the file as they are, blocks of
            quantized numbers and 16-bit numbers, and computes with them, exactly; ``"bfloat16"``
            rounds all matrices to that. On a GPU they are copied there, once, and take no adapters.
            ``"nf4"``, ``"int8"`` and ``"int4"`` quantize the matrices while they are read, one
            after the other, ``"bf16"`` rounds them to bfloat16, and ``"stored"`` takes the blocks
            of a directory that is quantized already: they serve writing, and the training of
            adapters beside them (QLoRA), on the CPU. Nowhere is there more of them in numbers than
            one matrix.
        activations
            What matrices are multiplied with when text is written. ``"float32"`` is exact. The
            others are faster, give nearly the same results, and only the CPU has them: ``"bf16"``
            rounds what meets matrices in bfloat16 to that; with ``dtype="auto"``, ``"int8"`` rounds
            what meets quantized matrices to signed bytes, each 32 with a scale, and lays the
            matrices out anew, in as much memory again as they take in the file.
        revision
            A branch, a tag or a commit of the hub.
        strict
            Refuse weights that hold NaN or infinity instead of warning.

        Raises
        ------
        ConfigError
            There is no such model, or no such dtype.
        DataError
            Its files are damaged, not supported, pickles only, or do not fit each other.
        OmnimaError
            The hub cannot be reached, or huggingface_hub is not installed.
        """
        from omnima import hub
        from omnima._places import find_model, hub_name

        _check_dtype(dtype, device, activations)
        check_device(device)
        path = find_model(directory, revision)
        with paused():
            if path.is_file():
                stored = hub.open_gguf(path, look=dtype != "float32")
            else:
                stored = hub.open_pretrained(path)
                stored = replace(stored, finish_tokenizer=lambda: hub.tokenizer_beside(path))
            config = ModelConfig.from_dict(stored.config)
            if dtype == "float32":
                # No weights are drawn: all of them are filled.
                model = cls(config, seed=None, device=device)
                stored.fill(model.named_parameters(), strict)
            elif dtype in _HELD:
                model = cls._held(stored, dtype, strict)
            else:
                model = cls.__new__(cls)
                model.config, model.tokenizer, model._decoder = config, None, None
                model._begin_without_adapters()
                model._stored = stored.lying(dtype, strict, activations, device)
        # That of a GGUF file was built beside all this.
        tokenizer = stored.tokenizer
        if tokenizer is not None:
            beside = path if path.is_dir() else None
            hub.check_tokenizer(tokenizer, stored.config, str(directory), beside)
        model.tokenizer = tokenizer
        if dtype not in _HELD:
            model.quantization = stored.quantization
        if path.is_dir() and stored.quantization is None:
            model._file_names = stored.names
        named = hub_name(directory, revision)
        base = named.repo if named else None
        its_own = hub.Origin(base, stored.license)
        model.origin = its_own if path.is_file() else hub.read_origin(path, base)
        return model

    @classmethod
    def _held(cls, stored: StoredModel, dtype: str, strict: bool) -> Model:
        """A model of files whose matrices are held in blocks."""
        from omnima.quantization import held

        if dtype == "stored" or stored.quantization is not None:
            wanted = None if dtype == "stored" else dtype
            chosen = held.as_stored(stored.quantization, stored.where, wanted)
        else:
            chosen = held.holding(stored.config, dtype)
        model = cls.__new__(cls)
        model.config, model.tokenizer = ModelConfig.from_dict(stored.config), None
        model._stored = None
        model._begin_without_adapters()
        core = _core.Decoder(model.config.core(), None, "cpu", dict(chosen.formats))
        stored.fill(core.named_parameters(), strict, chosen.holder(core))
        model._decoder, model.quantization = core, chosen.of(core)
        return model

    def hold_blocks(self, to: str | None = None) -> None:
        """Keep the model's matrices as blocks alone, without their numbers, on the CPU.

        It can then write, and train adapters (QLoRA), in far less memory; its own weights learn no
        more. Experts stay numbers.

        Parameters
        ----------
        to
            ``"nf4"``, ``"int8"``, ``"int4"`` or ``"bf16"``: a model with numbers is held as
            :meth:`from_pretrained` does it with that dtype. Left out: :meth:`quantize` did so.

        Raises
        ------
        ConfigError
            The model is not quantized, or otherwise than asked for; it lives on a GPU or has
            adapters.
        DataError
            Its parameters were changed since it was quantized, or hold NaN or infinity.

        Examples
        --------
        >>> model = Model.from_preset("nima", vocab_size=512)
        >>> model.hold_blocks("nf4")
        >>> model.add_adapter("lora", rank=4)
        """
        from omnima.quantization import held

        if self.adapters:
            raise ConfigError(
                f"The adapters {', '.join(self.adapters)} stand at the model as it is: remove them "
                "first."
            )
        if self.device != "cpu":
            raise ConfigError(f"Matrices are held in blocks on the CPU, not on {self.device}.")
        if to is not None and self.quantization is None:
            chosen = held.holding(self.config.to_dict(), to)
            numbers = dict(self._numbers())
            blocks = {
                name: held.blocks_of(numbers[name].detach(), format, name)
                for name, format in chosen.formats.items()
            }
        else:
            chosen = held.as_stored(self.quantization, "The model", to)
            if self.core.held or self.quantization is None:
                return
            self.quantization.check_unchanged(dict(self.named_parameters()))
            blocks = dict(self.quantization.blocks)
        self._decoder = held.held_decoder(self.core, chosen.formats, blocks)
        self.quantization = chosen.of(self._decoder)

    def add_tokens(
        self,
        tokens: Sequence[str],
        special: bool = True,
        *,
        multiple_of: int = 1,
        init: str = "mean",
        seed: int = 0,
    ) -> list[int]:
        """Add tokens to the tokenizer, and rows for them to the embedding and to the head.

        Tied matrices stay tied. Rows that were spare are used first, as they are. All weights that
        were there are unchanged to the bit, and so is what they compute. A trainer made before
        trains the model as it was: make it anew.

        Parameters
        ----------
        tokens, special
            As in :meth:`omnima.Tokenizer.add_tokens`.
        multiple_of, init, seed
            As in :meth:`resize`.

        Returns
        -------
        list[int]
            The id of each token. ``TrainConfig(train_rows_from=ids[0])`` trains the new rows alone.

        Raises
        ------
        ConfigError
            A text that cannot be a token; nothing has changed then.
        DataError
            The model has no tokenizer.
        """
        if self.tokenizer is None:
            raise DataError("This model has no tokenizer: set model.tokenizer, or use resize().")
        larger, ids = with_tokens(self.tokenizer.description, tokens, special)
        needed = max(len(larger.pieces), self.config.vocab_size)
        self.resize(needed, multiple_of=multiple_of, init=init, seed=seed)
        self.tokenizer.add_tokens(tokens, special)
        return ids

    def resize(
        self, vocab_size: int, *, multiple_of: int = 1, init: str = "mean", seed: int = 0
    ) -> None:
        """Give embedding and head rows for more tokens.

        Parameters
        ----------
        vocab_size
            Rows to have: as many as there are, or more.
        multiple_of
            Round up to a multiple: 64 makes products faster on some machines.
        init
            What new rows are: ``"mean"`` of the old ones, so that a new token begins as an average
            one, or ``"random"`` as in a fresh model.
        seed
            Of the random rows.

        Raises
        ------
        ConfigError
            Fewer rows than there are, or an unknown init.
        """
        if self.adapters:
            raise ConfigError(
                f"The adapters {', '.join(self.adapters)} stand at the model as it is: remove them "
                "first, or merge and drop them."
            )
        if self.core.held:
            raise ConfigError(
                "The matrices of this model are held in blocks, to which no rows are added: grow "
                "the model that they were made of."
            )
        rows = rows_of(vocab_size, multiple_of)
        self._decoder, self.config = grown(
            self.core, self.config, rows, init, seed, check_device(self.device)
        )

    def quantize(
        self,
        to: str,
        method: str | None = None,
        group_size: int | None = None,
        calibration: Text | torch.Tensor | None = None,
        *,
        zero_point: bool | None = None,
        ends: str = "int8",
        keep: Iterable[str] = (),
        progress: Callable[[int, int], object] | None = None,
    ) -> Report:
        """Make the model small: its matrices become blocks of a few bits a number.

        The parameters then hold the numbers that the blocks stand for, in float32, and
        :meth:`save_pretrained` writes the blocks.

        Parameters
        ----------
        to
            ``"int8"``, ``"int4"`` or ``"nf4"`` (QLoRA's 16 values, with scales in a byte).
        method
            ``"rtn"`` rounds to the nearest level, each group clipped where that is best. ``"gptq"``
            (Frantar et al. 2022) and ``"awq"`` (Lin et al. 2023) look at what the calibration text
            multiplies the matrices with. Left out: rtn for int8, gptq for four bits.
        group_size
            Numbers that share a scale: 32, 64 or 128, for int8 also 0, a whole row. Left out: 64.
            Where it does not divide a matrix' inputs it is halved, down to 32; a matrix that no
            group divides has a scale a row in int8, and is kept otherwise.
        calibration
            Text like that which the model will see: what `omnima.data.open_source` takes, or ids,
            int64 ``[rows, time]``. Left out: Python's standard library. The last tenth of a text is
            read by no method and measures the perplexity.
        zero_point
            int4: levels above a least number of each group, 16 bits a group more; on by default.
        ends
            What becomes of embedding and head of a model in four bits, and of the projections to
            keys and values where several heads share them: ``"int8"`` with a scale a row,
            ``"same"`` as all matrices, or ``"none"``: embedding and head are kept.
        keep
            Patterns of parameters to keep, such as ``"model.layers.0.*"``.
        progress
            Called with the layers that are done and how many there are.

        Returns
        -------
        Report
            Size, perplexities, seconds, and what was kept in high precision.

        Raises
        ------
        ConfigError
            Something unknown, a model that is quantized already, or nothing to calibrate with.
        DataError
            A text that is missing, empty, too short or no text; NaN or infinity in the weights.

        Examples
        --------
        >>> model = Model.from_preset("nima", vocab_size=512)
        >>> model.quantize("int8").kept_in_high_precision[0]
        'model.layers.0.input_layernorm.weight'
        """
        from omnima import quantization

        self._check_without_adapters("quantize")
        if self.config.reward_head:
            raise ConfigError("A reward model is not quantized: its head would lose its meaning.")
        return quantization.quantize(
            self,
            to,
            method,
            group_size,
            calibration,
            zero_point=zero_point,
            ends=ends,
            keep=keep,
            progress=progress,
        )

    def __call__(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return the logits, float32 ``[batch, time, vocab]``, of int64 ids ``[batch, time]``."""
        if self._stored is not None:
            return torch.stack([self._stored.engine.logits(row) for row in input_ids.tolist()])
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

    def reward(self, texts: Sequence[Any]) -> list[float]:
        """Return how good a reward model finds texts; as `generation.rewards` says."""
        from omnima.generation.rewards import rewards

        return rewards(self, texts)

    def with_reward_head(self, seed: int = 0) -> Model:
        """Return a reward model with these weights: a head that says how good a text is, drawn
        from `seed`, in the place of the one for tokens. An adapter that is added then learns with
        a head of its own beside it.

        >>> model = Model.from_preset("nima", vocab_size=512).with_reward_head()
        >>> model.config.reward_head, model.core.rewards(torch.tensor([[1, 2, 3]])).shape
        (True, torch.Size([1, 3]))
        """
        from omnima.quantization.held import Holding

        self._check_without_adapters("with_reward_head")
        if self.config.reward_head:
            raise ConfigError("This model has a reward head already.")
        made = Model.__new__(Model)
        made.config = self.config.replace(reward_head=True, prediction_heads=0)
        made.tokenizer, made.origin, made.quantization = self.tokenizer, self.origin, None
        made._stored = None
        made._begin_without_adapters()
        made._file_names = self._file_names
        # The head for tokens is left out.
        held = [each for each in self.core.held if each[0] != "lm_head.weight"]
        formats = {name: format for name, format, _ in held}
        made._decoder = _core.Decoder(made.config.core(), seed, check_device(self.device), formats)
        for name, _, blocks in held:
            made._decoder.hold(name, blocks)
        old = dict(self.named_parameters())
        with torch.no_grad():
            for name, parameter in made.named_parameters():
                if name in old:
                    parameter.copy_(old[name])
        if self.quantization is not None and held:
            made.quantization = Holding(self.quantization.settings, formats).of(made._decoder)
        return made

    def as_asked_by(self, adapter: str | Path) -> Model:
        """Return the model that an adapter's directory is to be loaded at: :meth:`with_reward_head`
        where it carries a head that it learned, else this one.
        """
        return self.with_reward_head() if self._lacks_head_of(adapter) else self

    def named_parameters(self) -> list[tuple[str, torch.Tensor]]:
        """Return pairs of name (Hugging Face's Llama names) and float32 leaf tensor.

        Matrices that are held in blocks are not among them: see :meth:`hold_blocks`.
        """
        return self.core.named_parameters()

    @property
    def device(self) -> str:
        """Where the weights live: ``"cpu"``, or a GPU such as ``"cuda:0"``."""
        if self._stored is not None:
            return self._stored.device
        return str(self.named_parameters()[0][1].device)

    @property
    def bytes_to_come(self) -> int:
        """Memory in bytes that the weights will still take when text is written: what lies in
        mapped files, which the system counts as free, and the copies that the engine makes by the
        way of matrices in bfloat16. 0 on a GPU.
        """
        from omnima.hub.stored import compact_bytes

        if self._stored is not None:
            return self._stored.bytes_to_come
        held = self.core.held
        return sum(compact_bytes(blocks) for _, format, blocks in held if format == "bf16")

    @property
    def num_parameters(self) -> int:
        """Number of parameters; tied ones count once."""
        stored = self._stored is not None
        return self.config.num_parameters if stored else self.core.num_parameters()

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


def _check_dtype(dtype: str, device: str, activations: str) -> None:
    choices = ("float32", "auto", "bfloat16", *_HELD)
    if dtype not in choices:
        raise ConfigError(f'dtype is "{dtype}"; the choices are {", ".join(choices)}.')
    if dtype in _HELD and device != "cpu":
        raise ConfigError(
            f'dtype="{dtype}" holds matrices in blocks on the CPU, not on {device}: take "float32" '
            "there."
        )
    if activations not in ("float32", "bf16", "int8"):
        raise ConfigError(
            f'activations is "{activations}"; the choices are float32, bf16 and int8.'
        )
    if activations == "bf16" and dtype not in ("auto", "bfloat16"):
        raise ConfigError(
            'activations="bf16" meets matrices in bfloat16: take dtype="bfloat16", or "auto" where '
            f'the file stores them so, not "{dtype}".'
        )
    if activations == "int8" and dtype != "auto":
        raise ConfigError(
            f'activations="{activations}" meets the blocks of a quantized model as its file stores '
            f'them: take dtype="auto", not "{dtype}".'
        )
    if activations != "float32" and device != "cpu":
        raise ConfigError(
            f'activations="{activations}" computes on the CPU, not on {device}: leave it out there.'
        )
