"""The part of a model that carries adapters."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnima.config import ModelConfig
from omnima.errors import ConfigError
from omnima.tokenizers.chat_files import template_beside

if TYPE_CHECKING:
    import torch

    from omnima import _core
    from omnima.adapters import AdapterOptions, Module
    from omnima.hub import Origin
    from omnima.hub.naming import Names
    from omnima.hub.quantized import Quantization
    from omnima.tokenizers import Tokenizer


class Adaptable(ABC):
    """Adds, saves, loads, exchanges and merges adapters."""

    config: ModelConfig
    tokenizer: Tokenizer | None
    origin: Origin | None
    quantization: Quantization | None
    #: What each adapter is, by name.
    _adapters: dict[str, AdapterOptions]
    #: The parameters that adapters were merged into, as they were before.
    _unmerged: dict[str, torch.Tensor] | None
    #: Those that are merged, and how often each counts.
    _merged: dict[str, float]
    #: How the files that the model comes from call our parameters; None: as it would be written.
    _file_names: Names | None

    @property
    @abstractmethod
    def core(self) -> _core.Decoder:
        """The core's decoder."""

    @property
    @abstractmethod
    def _carrier(self) -> _core.Decoder:
        """The decoder that adapters stand at: the core's, or, where the weights are as a file
        stores them, one that has nothing else of its own.
        """

    @abstractmethod
    def _adapters_changed(self) -> None:
        """Others are in use now."""

    @property
    @abstractmethod
    def device(self) -> str:
        """Where the weights live."""

    @abstractmethod
    def named_parameters(self) -> list[tuple[str, torch.Tensor]]:
        """Return pairs of name and tensor; see :class:`omnima.Model`."""

    def _begin_without_adapters(self) -> None:
        self._adapters, self._unmerged, self._merged = {}, None, {}
        self._file_names = None

    def add_adapter(
        self,
        method: str = "lora",
        *,
        name: str = "default",
        rank: int | None = None,
        alpha: float | None = None,
        targets: str | Sequence[str] | None = None,
        dropout: float = 0.0,
        init: str | None = None,
        rank_stabilized: bool | None = None,
        up_rate: float | None = None,
        rank_pattern: Mapping[str, int] | None = None,
        alpha_pattern: Mapping[str, float] | None = None,
        virtual_tokens: int | None = None,
        initial_rank: int | None = None,
        budget_start: float | None = None,
        budget_end: float | None = None,
        budget_every: int | None = None,
        orthogonality: float | None = None,
        seed: int = 0,
    ) -> None:
        """Put an adapter beside the weights. From now on it alone learns, and the weights rest.

        Parameters
        ----------
        method
            ``"lora"``, ``"rslora"`` (counts alpha / sqrt(rank) times), ``"lora+"`` (B learns faster
            than A), ``"dora"`` (rows have magnitudes of their own), ``"pissa"`` or ``"olora"``
            (begin with a part of the weights), ``"ia3"`` (a factor for each output), ``"vera"``
            (random matrices, of which vectors learn), ``"bitfit"`` (the biases learn),
            ``"adalora"`` (ranks shrink while training, where they matter least), ``"bottleneck"``
            (a narrow layer behind attention and feed-forward part),
            ``"prompt"`` and ``"prefix"`` (virtual tokens in front of every text learn: their
            embeddings, or their keys and values in each layer).
            docs/explanation/adapters.md says what each is.
        name
            Of the adapter.
        rank
            Of what is added to each matrix; left out: 16, or 256 for vera. adalora: what is left
            in the end on average, 8. bottleneck: its width, 64.
        alpha
            What is added counts alpha / rank times. Left out: twice the rank, or the rank for
            rslora, pissa and olora. adalora: the rank is the initial one.
        targets
            Where: ``"all-linear"``, or names and patterns of modules as the model's files call
            them: ``"q_proj,v_proj"``, ``["layers.0.*"]``. Left out: all-linear; for ia3 keys,
            values and the last layer of the feed-forward part, whose inputs it scales; for
            bottleneck o_proj and down_proj.
        dropout
            Share of the inputs that what is added does not see in training.
        init
            ``"default"`` (A random, B zero), ``"gaussian"``, ``"pissa"`` or ``"olora"``. Of a
            prompt: ``"default"`` (words of the model's vocabulary) or ``"gaussian"``; of a prefix:
            small numbers or ``"gaussian"``.
        rank_stabilized
            Count alpha / sqrt(rank) times.
        up_rate
            LoRA+: by how much faster B learns; 16 for ``"lora+"``, else 1.
        rank_pattern, alpha_pattern
            Other values for modules whose names end so (regular expressions).
        virtual_tokens
            prompt and prefix: how many; 20 where left out. They take room in the model's context.
        initial_rank, budget_start, budget_end, budget_every, orthogonality
            adalora: the rank that each matrix begins with, one and a half times the rank where left
            out; from which to which share of the steps the budget shrinks, and every how many
            steps (0.1, 0.7, 10); the weight of the penalty that keeps directions apart (0.5). A
            trainer has to know its number of steps.
        seed
            Of the initial values.

        Raises
        ------
        ConfigError
            An unknown method, a target that names no module, a name that is taken, values out of
            bounds.

        Examples
        --------
        >>> import omnima
        >>> model = omnima.Model.from_preset("nima", vocab_size=512)
        >>> model.add_adapter("lora", rank=4, targets="q_proj,v_proj")
        >>> model.num_trainable_parameters < model.num_parameters // 50
        True
        """
        from omnima.adapters import AdapterOptions

        self._check_unmerged()
        self._check_learnable()
        options = AdapterOptions.of(
            method,
            rank=rank,
            alpha=alpha,
            dropout=dropout,
            init=init,
            rank_stabilized=rank_stabilized,
            up_rate=up_rate,
            rank_pattern=rank_pattern,
            alpha_pattern=alpha_pattern,
            virtual_tokens=virtual_tokens,
            initial_rank=initial_rank,
            budget_start=budget_start,
            budget_end=budget_end,
            budget_every=budget_every,
            orthogonality=orthogonality,
            seed=seed,
        )
        found = self._sites_for(method, options.kind, targets)
        if options.kind == "ia3":
            ends = tuple(each.name for each in found if each.ends_feedforward)
            options = dataclasses.replace(options, feedforward=ends)
        self._attach(name, options, found)

    def _sites_for(
        self, method: str, kind: str, targets: str | Sequence[str] | None
    ) -> Sequence[Any]:
        """Return the modules where an adapter is to stand."""
        from omnima.adapters import chosen, usual_targets
        from omnima.adapters.options import IN_FRONT

        if kind in IN_FRONT:
            if targets is not None:
                raise ConfigError(f"{method} has no targets: it stands in front of the text.")
            return []
        modules = self.linear_modules
        found = chosen(modules, targets if targets is not None else usual_targets(kind, modules))
        if kind == "bottleneck" and (odd := [each for each in found if not each.ends_part]):
            raise ConfigError(
                f"A bottleneck stands behind attention or the feed-forward part (o_proj, "
                f"down_proj), not behind {odd[0].name}."
            )
        return found

    def _attach(self, name: str, options: AdapterOptions, modules: Sequence[Any]) -> None:
        from omnima import _core
        from omnima.adapters import peft_prompts

        config = self.config.to_dict()
        sites = [
            _core.AdapterSite(
                each.name,
                each.ordered,
                options.rank_of(each.name),
                options.scale(each.name),
                each.name in options.feedforward,
                each.order(config) if options.kind == "vera" else [],
            )
            for each in modules
        ]
        if options.kind == "prefix":
            sites = [
                _core.AdapterSite(peft_prompts.site_name(i), [peft_prompts.key_module(i)])
                for i in range(config["num_hidden_layers"])
            ]
        wanted = _core.AdapterOptions(
            options.kind,
            options.init,
            options.dropout,
            options.up_rate,
            options.seed,
            options.virtual_tokens,
            _core.RankBudget(
                options.rank,
                options.budget_start,
                1 - options.budget_end,
                options.budget_every,
                options.orthogonality,
            )
            if options.kind == "adalora"
            else _core.RankBudget(),
        )
        self._carrier.add_adapter(name, sites, wanted)
        self._adapters[name] = options

    @property
    def linear_modules(self) -> dict[str, Module]:
        """Where adapters can stand: the linear layers of the blocks, as the model's files call
        them.
        """
        from omnima.adapters import linear_modules

        return linear_modules(self.config.to_dict(), self._file_names)

    @property
    def adapters(self) -> dict[str, AdapterOptions]:
        """The options of each adapter by name."""
        return dict(self._adapters)

    @property
    def adapters_in_use(self) -> dict[str, float]:
        """How often each adapter counts that is in use, by name."""
        return dict(self._carrier.adapters_in_use) if self._adapters else {}

    @property
    def virtual_tokens(self) -> int:
        """How many tokens of the context the adapter in use takes in front of every text."""
        if not self._adapters:
            return 0
        return sum(self._adapters[name].virtual_tokens for name in self._carrier.adapters_in_use)

    @property
    def context(self) -> int:
        """How many tokens of text the model takes at once: its context, less virtual tokens."""
        room: int = self.config.max_position_embeddings
        return room - self.virtual_tokens

    @property
    def num_trainable_parameters(self) -> int:
        """Number of parameters that learn: those of the adapter in use, or all."""
        learning = self.core.learning_adapter
        if learning is None:
            return 0 if self._adapters or self.core.held else self.core.num_parameters()
        return sum(each.numel() for _, each in self.core.adapter_parameters(learning))

    def adapter_parameters(self, name: str = "default") -> list[tuple[str, torch.Tensor]]:
        """Return pairs of name and float32 leaf tensor of an adapter.

        The names are those of the model's modules, and rows of fused modules lie as with us:
        :meth:`save_adapter` writes them as files have them.
        """
        return self._carrier.adapter_parameters(name)

    def set_adapters(self, weights: Mapping[str, float] | str) -> None:
        """Use exactly these adapters, each as often as it counts; no numbers are moved.

        Parameters
        ----------
        weights
            ``{name: weight}``, or the name of one. Empty: the model as it is without any. One alone
            that counts once also learns.

        Raises
        ------
        ConfigError
            An unknown name, or several where a kind is used alone.
        """
        self._check_unmerged()
        chosen = {weights: 1.0} if isinstance(weights, str) else dict(weights)
        self._carrier.use_adapters(chosen)
        self._adapters_changed()

    def remove_adapter(self, name: str = "default") -> None:
        """Take an adapter away. With the last one gone, the model itself learns again."""
        self._check_unmerged()
        self._carrier.remove_adapter(name)
        del self._adapters[name]
        self._adapters_changed()

    def save_adapter(self, directory: str | Path, name: str | None = None) -> None:
        """Write an adapter as a directory that PEFT loads.

        Parameters
        ----------
        directory
            Made if absent: adapter_config.json and adapter_model.safetensors.
        name
            Of the adapter; left out: the one that learns.
        """
        from omnima.adapters import write_adapter

        chosen = name or self.core.learning_adapter
        if chosen is None:
            raise ConfigError("No adapter learns here: say which one to save, name=….")
        write_adapter(self, directory, chosen)

    def load_adapter(self, directory: str | Path, name: str | None = None) -> str:
        """Read an adapter from a directory of PEFT and use it alone.

        A chat template that lies there is taken where the model's tokenizer has none: the adapter
        learned conversations in that form.

        Parameters
        ----------
        directory
            With adapter_config.json and adapter_model.safetensors.
        name
            What it is called here; left out: the directory's own name.

        Returns
        -------
        str
            The name.

        Raises
        ------
        DataError
            Files that are missing, damaged, of a kind that is not supported, or that fit no module
            of this model.
        ConfigError
            A name that is taken.
        """
        from omnima.adapters import read_adapter

        self._check_unmerged()
        chosen = name or Path(directory).resolve().name
        found = read_adapter(directory, self.config.to_dict(), self.linear_modules)
        self._attach(chosen, found.options, found.modules)
        carrier = self._carrier
        found.fill(carrier.adapter_parameters(chosen), carrier.adapter_constants(chosen))
        self._adapters_changed()
        if self.tokenizer is not None and self.tokenizer.chat_template is None:
            self.tokenizer.chat_template = template_beside(Path(directory))
        return chosen

    def _lacks_head_of(self, adapter: str | Path) -> bool:
        """Whether an adapter's directory carries the head of a reward model, which this is none."""
        from omnima.adapters import of_reward_model

        return of_reward_model(adapter) and not self.config.reward_head

    def merge_adapters(self) -> None:
        """Make the adapters in use part of the weights: the model is then as fast as without.

        The weights as they were stay in memory, for :meth:`unmerge_adapters`.

        Raises
        ------
        ConfigError
            No adapter is in use, they are merged already, the model is quantized (merging would
            round what was learned), or it has no biases where an adapter has.
        """
        import torch

        self._check_unmerged()
        if not self.core.adapters_in_use:
            raise ConfigError("No adapter is in use: there is nothing to merge.")
        if self.quantization is not None or self.core.held:
            raise ConfigError(
                "This model is quantized, and merging would round away what was learned: merge "
                "into an unquantized base only, the model that it was made of, and quantize that."
            )
        changed = dict(self.core.merged_parameters())
        parameters = dict(self.named_parameters())
        kinds = {self._adapters[name].kind for name in self.core.adapters_in_use}
        if kinds & {"prompt", "prefix", "bottleneck"}:
            raise ConfigError(
                f"An adapter of kind {', '.join(kinds)} is no part of any weights: keep it beside "
                "the model."
            )
        if missing := [key for key in changed if key not in parameters]:
            raise ConfigError(
                f"The adapter has biases ({missing[0]}, …) and this model has none there to merge "
                "them into: keep the adapter beside it."
            )
        self._unmerged = {key: parameters[key].detach().clone() for key in changed}
        self._merged = dict(self.core.adapters_in_use)
        with torch.no_grad():
            for key, values in changed.items():
                parameters[key].copy_(values)
        self.core.use_adapters({})

    def unmerge_adapters(self) -> None:
        """Give the weights back, bit for bit, and use the adapters beside them again."""
        import torch

        if self._unmerged is None:
            raise ConfigError("No adapters are merged here.")
        parameters = dict(self.named_parameters())
        with torch.no_grad():
            for key, values in self._unmerged.items():
                parameters[key].copy_(values)
        self._unmerged = None
        self.core.use_adapters(self._merged)

    def drop_adapters(self) -> None:
        """Forget all adapters. Those that are merged stay in the weights, for good."""
        for name in list(self._adapters):
            self._carrier.remove_adapter(name)
        self._adapters.clear()
        self._unmerged = None
        self._adapters_changed()

    def _check_learnable(self) -> None:
        """OmnimaError where the weights are as a file stores them."""
        _ = self.core

    def _check_unmerged(self) -> None:
        if self._unmerged is not None:
            raise ConfigError(
                "Adapters are merged into the weights: call unmerge_adapters() first."
            )

    def _check_without_adapters(self, what: str) -> None:
        if self.core.adapters_in_use:
            names = ", ".join(self.core.adapters_in_use)
            raise ConfigError(
                f"The adapters {names} are in use, which {what} would leave out: call "
                "merge_adapters() first, or set_adapters({}) to do without them."
            )

    def adapted(self, weights: Mapping[str, float] | str | None) -> _core.AdaptedModel | None:
        """Return what some adapters make of the model, for texts that are written with them.

        Parameters
        ----------
        weights
            As for :meth:`set_adapters`; None or empty: the model as it is without any.

        Raises
        ------
        ConfigError
            An unknown name, or several where a kind is used alone.
        """
        self._check_unmerged()
        if self.device != "cpu":
            raise ConfigError(
                "On a GPU adapters are not chosen for each text: use set_adapters, for all."
            )
        chosen = {weights: 1.0} if isinstance(weights, str) else dict(weights or {})
        return self._carrier.adapted(chosen) if chosen else None

    def _effective_parameters(self) -> list[tuple[str, torch.Tensor]]:
        """The parameters with the adapters in use merged into copies of those they change, and
        biases that only adapters have.

        Of matrices that are held in blocks only such copies are among them.
        """
        parameters = self.named_parameters()
        if not self.core.adapters_in_use:
            return parameters
        changed = dict(self.core.merged_parameters())
        return list({**dict(parameters), **changed}.items())
