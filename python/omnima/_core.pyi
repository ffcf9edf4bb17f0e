# Generated from the extension by tools/make_stubs.py (make stubs); do not edit.
"""
The C++ core of Omnima. Its public face is the package omnima.
"""
from __future__ import annotations
import collections.abc
import numpy
import numpy.typing
import os
import torch
import typing
__all__: list[str] = ['AdaptedModel', 'AdapterOptions', 'AdapterSite', 'BatchSource', 'CurriculumOptions', 'Decoder', 'DecoderConfig', 'Engine', 'Field', 'FiniteLook', 'GgufFile', 'LayerNorm', 'LayerNorms', 'Loader', 'Marking', 'ObjectiveOptions', 'PromptCache', 'RankBudget', 'SampleLoader', 'Scheduler', 'Span', 'StepOptions', 'StepResult', 'StreamDecoder', 'TextList', 'TokenClock', 'Tokenizer', 'TokenizerBuild', 'TrainStep', 'adapter_kinds', 'block_of', 'built_with_torch', 'cpu_features', 'cpu_level', 'dequantized', 'document_losses', 'fill_parameter', 'forget', 'formats', 'generate_option_fields', 'give_memory_back', 'has_gpu_kernels', 'nearest_name', 'nonfinite_tensors', 'optimizer_names', 'page_out', 'process_logits', 'quantize_matrix', 'quantized', 'read_safetensors', 'read_safetensors_metadata', 'row_bytes', 'schedule_names', 'split_pattern_names', 'split_text', 'start_recording', 'stop_recording', 'uniform', 'why_not_on_gpu', 'write_gguf', 'write_safetensors']
class Marking:
    """
    How spaces become marks (U+2581) before text is cut, and back.
    """
    def __init__(self, *, prefix: str = 'never', opening: str = 'nothing', in_normalizer: bool = False, words: bool = False, collapse: bool = False, sentencepiece: bool = False, characters: str | None = None) -> None:
        """
        prefix: which stretches of text get a mark in front (never, first, always, every). opening: what a decoded text loses (nothing, space, mark, marks, piece). characters: the bytes of SentencePiece's map of characters.
        """
class TextList:
    """
    Texts as the core holds them: none of them is a Python object.
    """
    def __init__(self, texts: collections.abc.Sequence[str]) -> None:
        ...
    def __len__(self) -> int:
        ...
    def __repr__(self) -> str:
        ...
    def holds_twice(self) -> bool:
        """
        Whether two of them are equal.
        """
    def tolist(self) -> list[str]:
        """
        The texts.
        """
class Tokenizer:
    """
    Text to ids and back; the core behind omnima.Tokenizer.
    """
    def __init__(self, *, algorithm: str, pieces: TextList, roles: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], merges: typing.Annotated[numpy.typing.ArrayLike, numpy.uint32], scores: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex], unknown: typing.SupportsInt | typing.SupportsIndex | None = None, bos: typing.SupportsInt | typing.SupportsIndex | None = None, eos: typing.SupportsInt | typing.SupportsIndex | None = None, pad: typing.SupportsInt | typing.SupportsIndex | None = None, pattern: str | None = None, whole_first: bool = False, nfc: bool = False, fuse_unknown: bool = False, marking: Marking | None = None, found: collections.abc.Sequence[tuple[typing.SupportsInt | typing.SupportsIndex, str, bool, bool, bool]] = []) -> None:
        """
        Build from pieces (their order gives the ids), roles (0 text, 1 byte, 2 special, 3 added, 4 user), and merges (rows of left, right, result) or scores. A pattern makes it byte-level: pieces spell bytes, merges stay within what the pattern cuts. With a marking pieces spell a space as U+2581. What is found in texts before they are cut: (id, text, strips spaces before, strips those behind, is looked for behind the normalizer).
        """
    def __len__(self) -> int:
        ...
    def decode(self, ids: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], skip_special: bool = True, after: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex] = []) -> str:
        """
        Text of ids that come after others; broken UTF-8 is U+FFFD.
        """
    def encode(self, text: typing.Any, add_bos: bool = False, add_eos: bool = False, parse_special: bool = False) -> list[int]:
        """
        Ids of one text.
        """
    def encode_batch(self, texts: list, add_bos: bool = False, add_eos: bool = False, parse_special: bool = False, threads: typing.SupportsInt | typing.SupportsIndex = 0) -> list:
        """
        Ids of many texts as int32 arrays, on several threads (0: one a core).
        """
    def encode_dropped(self, text: typing.Any, dropout: typing.SupportsFloat | typing.SupportsIndex, key: typing.SupportsInt | typing.SupportsIndex) -> list[int]:
        """
        Ids of one text with merges left out by chance; equal keys give equal ids.
        """
    def encode_sampled(self, text: typing.Any, alpha: typing.SupportsFloat | typing.SupportsIndex, key: typing.SupportsInt | typing.SupportsIndex) -> list[int]:
        """
        Ids drawn from all cuts of one text by the power alpha of their probability; equal keys give equal ids.
        """
    def merges(self) -> numpy.typing.NDArray[numpy.uint32]:
        """
        Rows of left, right and result, in the order of their rank.
        """
    def piece(self, id: typing.SupportsInt | typing.SupportsIndex) -> str:
        """
        The token as the vocabulary spells it.
        """
    def pieces(self) -> TextList:
        """
        All of them, in the order of their ids.
        """
    def recut(self, ids: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], amount: typing.SupportsFloat | typing.SupportsIndex, key: typing.SupportsInt | typing.SupportsIndex) -> list[int]:
        """
        Ids of the same text, cut again by chance: amount is the dropout of BPE or the alpha of unigram.
        """
    def token_bytes(self) -> list[bytes]:
        """
        What each token writes inside a text, special tokens spelled out.
        """
class TokenizerBuild:
    """
    A byte-level tokenizer that a thread of its own builds, beside what else is done.
    """
    def __init__(self, *, pieces: TextList, roles: bytes, merge_lines: TextList, bos: typing.SupportsInt | typing.SupportsIndex | None, eos: typing.SupportsInt | typing.SupportsIndex | None, pad: typing.SupportsInt | typing.SupportsIndex | None, pattern: str, whole_first: bool) -> None:
        """
        Begins with pieces, none of which may stand twice, a byte a piece that is its role, and lines such as 'a b' for the merge of the pieces a and b to ab.
        """
    def tokenizer(self) -> Tokenizer:
        """
        Waits for the tokenizer; DataError where the lists make none.
        """
class StreamDecoder:
    """
    Ids to text one by one, never splitting a character.
    """
    def __init__(self, tokenizer: Tokenizer, skip_special: bool = True, after: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex] = []) -> None:
        ...
    def finish(self) -> str:
        """
        What was held back; unfinished bytes are U+FFFD.
        """
    def push(self, id: typing.SupportsInt | typing.SupportsIndex) -> str:
        """
        The text that this token completes.
        """
class Field:
    """
    Description of one configuration field.
    """
    @property
    def choices(self) -> list[str]:
        ...
    @property
    def default(self) -> bool | int | float | str:
        ...
    @property
    def maximum(self) -> float:
        ...
    @property
    def meaning(self) -> str:
        ...
    @property
    def minimum(self) -> float:
        ...
    @property
    def name(self) -> str:
        ...
class DecoderConfig:
    """
    Checked shape of a decoder.
    """
    @staticmethod
    def fields() -> list[Field]:
        """
        Descriptions of all fields.
        """
    def __init__(self, values: collections.abc.Mapping[str, bool | typing.SupportsInt | typing.SupportsIndex | typing.SupportsFloat | typing.SupportsIndex | str]) -> None:
        """
        From field names to values; unknown names and values out of bounds raise ConfigError.
        """
    def seen_pairs(self, time: typing.SupportsInt | typing.SupportsIndex) -> float:
        """
        Pairs of a query and a key that it sees in a row of `time` tokens, of all layers and heads.
        """
    def values(self) -> dict[str, bool | int | float | str]:
        """
        All fields by name.
        """
class Decoder:
    """
    A decoder-only language model.
    """
    def __init__(self, config: DecoderConfig, seed: typing.SupportsInt | typing.SupportsIndex | None = 0, device: str = 'cpu', held: collections.abc.Mapping[str, str] = {}) -> None:
        """
        Weights are drawn from the seed; with None they hold anything, to be overwritten. held: matrices by name that are held in blocks of a format, which `hold` brings; they do not learn.
        """
    def adapted(self, weights: collections.abc.Mapping[str, typing.SupportsFloat | typing.SupportsIndex]) -> AdaptedModel:
        """
        What these adapters, each as often as it counts, make of the model.
        """
    def adapter_constants(self, name: str) -> list[tuple[str, torch.Tensor]]:
        """
        What belongs to it but does not learn: pairs of name and tensor.
        """
    def adapter_parameters(self, name: str) -> list[tuple[str, torch.Tensor]]:
        """
        Pairs of name and float32 leaf tensor, each a view of the adapter's flat buffer.
        """
    def add_adapter(self, name: str, sites: collections.abc.Sequence[AdapterSite], options: AdapterOptions) -> None:
        """
        Makes an adapter, which alone is in use then and learns.
        """
    def attention(self, ids: torch.Tensor) -> torch.Tensor:
        """
        ids int64 [batch, time] -> what tokens take from which, float32 [layers, batch, heads, time, time]. Virtual tokens of an adapter in use stand in front.
        """
    def hold(self, name: str, blocks: torch.Tensor) -> None:
        """
        The blocks of such a matrix, uint8 [outputs, bytes of a row], whose memory it shares.
        """
    def logits(self, ids: torch.Tensor) -> torch.Tensor:
        """
        ids int64 [batch, time] -> logits float32 [batch, time, vocab].
        """
    def loss(self, ids: torch.Tensor, labels: torch.Tensor, segments: torch.Tensor | None = None, as_trained: bool = False) -> torch.Tensor:
        """
        Mean cross-entropy in nats; labels [batch, time] already shifted, -100 is ignored. as_trained: as a training step has it, with routers' losses and dropout (of seed 0).
        """
    def merged_parameters(self) -> list[tuple[str, torch.Tensor]]:
        """
        Names and new values of the parameters with the adapters in use merged into them, and of biases that the model has none of, where an adapter has.
        """
    def named_parameters(self) -> list[tuple[str, torch.Tensor]]:
        """
        Pairs of name and float32 leaf tensor, each a view of the one flat buffer; but for matrices that are held in blocks.
        """
    def num_parameters(self) -> int:
        """
        Number of parameters; tied ones count once.
        """
    def prediction_losses(self, ids: torch.Tensor, labels: torch.Tensor, segments: torch.Tensor | None = None) -> torch.Tensor:
        """
        The mean loss of each prediction head over the tokens that it predicts, in nats.
        """
    def quantize(self, ids: torch.Tensor | None, method: str, formats: collections.abc.Mapping[str, str], progress: typing.Any = None) -> list[tuple[str, str, torch.Tensor]]:
        """
        Quantizes the parameters that `formats` names (rtn, gptq or awq; the last two read calibration ids int64 [rows, time]), which then hold the numbers of their blocks. Triples of name, format and blocks, uint8 [outputs, bytes of a row].
        """
    def remove_adapter(self, name: str) -> None:
        """
        The model itself learns again when the last one is gone.
        """
    def rewards(self, ids: torch.Tensor) -> torch.Tensor:
        """
        With a reward head: ids int64 [batch, time] -> rewards float32 [batch, time], of a text that ends at each token.
        """
    def use_adapters(self, weights: collections.abc.Mapping[str, typing.SupportsFloat | typing.SupportsIndex]) -> None:
        """
        Uses exactly these, each as often as it counts.
        """
    @property
    def adapters(self) -> list[str]:
        """
        The names of all that there are.
        """
    @property
    def adapters_in_use(self) -> dict[str, float]:
        """
        Names and how often each counts.
        """
    @property
    def adapters_merge(self) -> bool:
        """
        Whether all that those in use change can be merged into weights and biases.
        """
    @property
    def config(self) -> DecoderConfig:
        ...
    @property
    def held(self) -> list[tuple[str, str, torch.Tensor]]:
        """
        Triples of name, format and blocks of the matrices that are held so.
        """
    @property
    def learning_adapter(self) -> str | None:
        """
        The one whose parameters learn; None: none does.
        """
class AdapterSite:
    """
    Where an adapter shall stand.
    """
    def __init__(self, name: str, modules: collections.abc.Sequence[str], rank: typing.SupportsInt | typing.SupportsIndex = 0, scale: typing.SupportsFloat | typing.SupportsIndex = 1.0, feeds_forward: bool = False, order: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex] = []) -> None:
        """
        name: of its parameters. modules: of the model, which lie one behind the other in one layer. scale: by which what is added counts. order: where the model's files have each of its outputs; empty: where it lies here.
        """
class RankBudget:
    """
    AdaLoRA: how many numbers are left, and when.
    """
    def __init__(self, rank: typing.SupportsInt | typing.SupportsIndex = 0, initial_share: typing.SupportsFloat | typing.SupportsIndex = 0.1, final_share: typing.SupportsFloat | typing.SupportsIndex = 0.3, every: typing.SupportsInt | typing.SupportsIndex = 10, orthogonality: typing.SupportsFloat | typing.SupportsIndex = 0.5, beta1: typing.SupportsFloat | typing.SupportsIndex = 0.85, beta2: typing.SupportsFloat | typing.SupportsIndex = 0.85) -> None:
        """
        rank: of a layer in the end, on average. initial_share, final_share: of the steps, before and after the budget moves, every so many steps. orthogonality: weight of the penalty. beta1, beta2: what the means of importance and uncertainty keep.
        """
class AdapterOptions:
    """
    What kind of adapter, and how it begins.
    """
    def __init__(self, kind: str = 'lora', init: str = 'default', dropout: typing.SupportsFloat | typing.SupportsIndex = 0.0, up_rate: typing.SupportsFloat | typing.SupportsIndex = 1.0, seed: typing.SupportsInt | typing.SupportsIndex = 0, virtual_tokens: typing.SupportsInt | typing.SupportsIndex = 0, budget: RankBudget = ...) -> None:
        ...
class AdaptedModel:
    """
    What some adapters make of a model, for an Engine.
    """
class BatchSource:
    """
    A source of micro-batches for TrainStep.
    """
    def seek(self, position: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        Continue at this batch.
        """
    @property
    def position(self) -> int:
        """
        Batches given so far.
        """
class ObjectiveOptions:
    """
    What a row of tokens asks for.
    """
    name: str
    def __init__(self) -> None:
        ...
    def spans_in_row(self, time: typing.SupportsInt | typing.SupportsIndex) -> int:
        """
        Spans cut out of a row of `time` tokens; 0: it is too short.
        """
    @property
    def kept(self) -> list[int]:
        ...
    @kept.setter
    def kept(self, arg0: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]) -> None:
        ...
    @property
    def mask_id(self) -> int:
        ...
    @mask_id.setter
    def mask_id(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def rate(self) -> float:
        ...
    @rate.setter
    def rate(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None:
        ...
    @property
    def sentinels(self) -> list[int]:
        ...
    @sentinels.setter
    def sentinels(self, arg0: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]) -> None:
        ...
    @property
    def span_length(self) -> float:
        ...
    @span_length.setter
    def span_length(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None:
        ...
    @property
    def vocab_size(self) -> int:
        ...
    @vocab_size.setter
    def vocab_size(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
class CurriculumOptions:
    """
    How the first rows go from easy to hard.
    """
    def __init__(self, *, scores: torch.Tensor, pacing: str = 'linear', start: typing.SupportsFloat | typing.SupportsIndex = 0.1, rows: typing.SupportsInt | typing.SupportsIndex = 0, epochs: typing.SupportsFloat | typing.SupportsIndex = 0.0) -> None:
        """
        scores: of each document, the easiest lowest; without any there is no curriculum. All rows are in after so many rows, or epochs, of the run.
        """
class Loader(BatchSource):
    """
    Batches from token shards in an order that (seed, position) fix.
    """
    def __init__(self, *, shards: collections.abc.Sequence[tuple[str, str, typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex]], width: typing.SupportsInt | typing.SupportsIndex, rows: typing.SupportsInt | typing.SupportsIndex, time: typing.SupportsInt | typing.SupportsIndex, seed: typing.SupportsInt | typing.SupportsIndex = 0, packing: str = 'windows', sequential: bool = False, prefetch: bool = True, end_id: typing.SupportsInt | typing.SupportsIndex, start_id: typing.SupportsInt | typing.SupportsIndex, objective: ObjectiveOptions = ..., tokenizer: Tokenizer | None = None, dropout: typing.SupportsFloat | typing.SupportsIndex = 0.0, alpha: typing.SupportsFloat | typing.SupportsIndex | None = None, curriculum: CurriculumOptions = ...) -> None:
        """
        shards: (tokens path, docs path, number of tokens, number of documents) of each. With a tokenizer rows are cut anew in every epoch: by the power alpha of the probability of a cut where it is given, else with merges left out with the probability dropout. With a curriculum the first rows go from easy to hard.
        """
    def next(self: BatchSource) -> tuple:
        """
        The next (input_ids, labels, segments): int64 [rows, time]; segments may be None.
        """
    @property
    def batches_per_epoch(self) -> int:
        """
        Batches that visit every row once (the last one may hold rows of the next epoch).
        """
    @property
    def curriculum_rows(self) -> int:
        """
        Rows from the beginning that a curriculum orders; plain epochs follow.
        """
    @property
    def rows_per_epoch(self) -> int:
        """
        Rows that visit the data once.
        """
class SampleLoader(BatchSource):
    """
    Batches of samples of which only some tokens are labels, in an order that (seed, position) fix.
    """
    def __init__(self, *, ids: torch.Tensor, supervised: torch.Tensor, ends: torch.Tensor, rows: typing.SupportsInt | typing.SupportsIndex, time: typing.SupportsInt | typing.SupportsIndex, seed: typing.SupportsInt | typing.SupportsIndex = 0, packed: bool = True, sequential: bool = False, paired: bool = False, pad_id: typing.SupportsInt | typing.SupportsIndex = 0, good: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex] = []) -> None:
        """
        ids of all samples one behind the other, supervised: 1 where an id is a label, ends: of each sample, of at most time + 1 tokens. packed: several samples a row with segment numbers that attention does not cross; else one, as long as the batch's longest. paired: samples 2k and 2k + 1 stay side by side. good: of each of these, 1 where people liked the answer; or empty.
        """
    def next(self: BatchSource) -> tuple:
        """
        The next (input_ids, labels, segments): int64 [rows, time]; segments may be None.
        """
    def samples_of_row(self, row: typing.SupportsInt | typing.SupportsIndex) -> list[int]:
        """
        Numbers of the samples that lie in a row of the plan, in its order.
        """
    def set_reference(self, losses: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex]) -> None:
        """
        Of paired samples: the summed loss of each by the model that the run began with.
        """
    @property
    def batches_per_epoch(self) -> int:
        """
        Batches that visit every row once (the last one may hold rows of the next epoch).
        """
    @property
    def rows_per_epoch(self) -> int:
        """
        Rows that visit the data once.
        """
class StepOptions:
    """
    How a training step computes and updates.
    """
    divergence: str
    ema_eval: bool
    nesterov: bool
    offload_optimizer: str
    optimizer: str
    precision: str
    preference: str
    schedule: str
    def __init__(self) -> None:
        ...
    @property
    def accumulate(self) -> int:
        ...
    @accumulate.setter
    def accumulate(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def beta1(self) -> float:
        ...
    @beta1.setter
    def beta1(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None:
        ...
    @property
    def beta2(self) -> float:
        ...
    @beta2.setter
    def beta2(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None:
        ...
    @property
    def center_rewards(self) -> float:
        ...
    @center_rewards.setter
    def center_rewards(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None:
        ...
    @property
    def checkpoint_layers(self) -> int:
        ...
    @checkpoint_layers.setter
    def checkpoint_layers(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def clip_adaptive(self) -> float:
        ...
    @clip_adaptive.setter
    def clip_adaptive(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None:
        ...
    @property
    def clip_norm(self) -> float:
        ...
    @clip_norm.setter
    def clip_norm(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None:
        ...
    @property
    def clip_value(self) -> float:
        ...
    @clip_value.setter
    def clip_value(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None:
        ...
    @property
    def cycle_growth(self) -> float:
        ...
    @cycle_growth.setter
    def cycle_growth(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None:
        ...
    @property
    def cycles(self) -> int:
        ...
    @cycles.setter
    def cycles(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def decay_share(self) -> float:
        ...
    @decay_share.setter
    def decay_share(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None:
        ...
    @property
    def desirable_weight(self) -> float:
        ...
    @desirable_weight.setter
    def desirable_weight(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None:
        ...
    @property
    def ema_decay(self) -> float:
        ...
    @ema_decay.setter
    def ema_decay(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None:
        ...
    @property
    def eps(self) -> float:
        ...
    @eps.setter
    def eps(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None:
        ...
    @property
    def freeze(self) -> list[str]:
        ...
    @freeze.setter
    def freeze(self, arg0: collections.abc.Sequence[str]) -> None:
        ...
    @property
    def groups(self) -> list[str]:
        ...
    @groups.setter
    def groups(self, arg0: collections.abc.Sequence[str]) -> None:
        ...
    @property
    def label_smoothing(self) -> float:
        ...
    @label_smoothing.setter
    def label_smoothing(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None:
        ...
    @property
    def loss_scale(self) -> float:
        ...
    @loss_scale.setter
    def loss_scale(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None:
        ...
    @property
    def loss_scale_growth(self) -> int:
        ...
    @loss_scale_growth.setter
    def loss_scale_growth(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def lr(self) -> float:
        ...
    @lr.setter
    def lr(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None:
        ...
    @property
    def min_lr_ratio(self) -> float:
        ...
    @min_lr_ratio.setter
    def min_lr_ratio(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None:
        ...
    @property
    def momentum(self) -> float:
        ...
    @momentum.setter
    def momentum(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None:
        ...
    @property
    def prediction_weight(self) -> float:
        ...
    @prediction_weight.setter
    def prediction_weight(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None:
        ...
    @property
    def preference_beta(self) -> float:
        ...
    @preference_beta.setter
    def preference_beta(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None:
        ...
    @property
    def preference_margin(self) -> float:
        ...
    @preference_margin.setter
    def preference_margin(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None:
        ...
    @property
    def ramp_steps(self) -> int:
        ...
    @ramp_steps.setter
    def ramp_steps(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def rise_share(self) -> float:
        ...
    @rise_share.setter
    def rise_share(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None:
        ...
    @property
    def seed(self) -> int:
        ...
    @seed.setter
    def seed(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def stage_factor(self) -> float:
        ...
    @stage_factor.setter
    def stage_factor(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None:
        ...
    @property
    def stages(self) -> int:
        ...
    @stages.setter
    def stages(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def temperature(self) -> float:
        ...
    @temperature.setter
    def temperature(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None:
        ...
    @property
    def total_steps(self) -> int:
        ...
    @total_steps.setter
    def total_steps(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def undesirable_weight(self) -> float:
        ...
    @undesirable_weight.setter
    def undesirable_weight(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None:
        ...
    @property
    def warmup_steps(self) -> int:
        ...
    @warmup_steps.setter
    def warmup_steps(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def weight_decay(self) -> float:
        ...
    @weight_decay.setter
    def weight_decay(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None:
        ...
    @property
    def z_loss(self) -> float:
        ...
    @z_loss.setter
    def z_loss(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None:
        ...
class StepResult:
    """
    What a step did.
    """
    @property
    def balance_loss(self) -> float:
        """
        With experts: the routers' load-balance loss, not part of `loss`.
        """
    @property
    def grad_norm(self) -> float:
        """
        Before clipping.
        """
    @property
    def input_tokens(self) -> int:
        """
        Tokens that the model read, targets or not.
        """
    @property
    def loss(self) -> float:
        """
        Mean over the step's target tokens, in nats.
        """
    @property
    def loss_scale(self) -> float:
        """
        fp16: factor of the loss; else 0.
        """
    @property
    def lr(self) -> float:
        ...
    @property
    def reward_accuracy(self) -> float:
        """
        Of pairs: the share whose chosen answer has the higher reward; of judged answers: whose reward is on the right side of the model's drift.
        """
    @property
    def reward_margin(self) -> float:
        """
        Of pairs: the mean reward of the chosen answer over the other; of judged answers: the mean reward, that of bad ones counted negative.
        """
    @property
    def router_z_loss(self) -> float:
        """
        With experts: the routers' z-loss, not part of `loss`.
        """
    @property
    def skipped(self) -> bool:
        """
        fp16: overflow, the weights stayed.
        """
    @property
    def tokens(self) -> int:
        """
        Target tokens.
        """
class TrainStep:
    """
    A whole training step in one call.
    """
    def __init__(self, decoder: Decoder, options: StepOptions) -> None:
        ...
    def apply_gradient(self, gradient: torch.Tensor) -> StepResult:
        """
        Clip and update with a flat gradient from elsewhere; loss and tokens are 0.
        """
    def evaluate(self, source: BatchSource, batches: typing.SupportsInt | typing.SupportsIndex) -> tuple[float, int]:
        """
        Sum of losses in nats and number of target tokens (or of pairs) over the next batches.
        """
    def evaluate_batches(self, batches: collections.abc.Sequence[tuple[torch.Tensor, torch.Tensor]]) -> tuple[float, int]:
        """
        The same over given (ids, labels) pairs.
        """
    def load_state(self, state: collections.abc.Mapping[str, torch.Tensor], step: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        Copy the buffers in and continue after `step`.
        """
    def replan(self, warmup_steps: typing.SupportsInt | typing.SupportsIndex, accumulate: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        Take another warmup, or another number of batches a step, from the next step on.
        """
    def row_losses(self, source: BatchSource, batches: typing.SupportsInt | typing.SupportsIndex) -> list[float]:
        """
        The summed loss of every row of the next batches, in order.
        """
    def run(self, source: BatchSource) -> StepResult:
        """
        Pull options.accumulate batches and update the weights once.
        """
    def run_batches(self, batches: collections.abc.Sequence[tuple[torch.Tensor, torch.Tensor]]) -> StepResult:
        """
        The same with given (ids, labels) pairs, one a micro-batch.
        """
    def set_lr(self, lr: typing.SupportsFloat | typing.SupportsIndex) -> None:
        """
        The highest learning rate of the schedule from now on.
        """
    def set_progress(self, progress: typing.SupportsFloat | typing.SupportsIndex) -> None:
        """
        Fraction of the run that is done; the schedule follows it instead of total_steps.
        """
    def set_teacher(self, decoder: Decoder) -> None:
        """
        With options.divergence: the model to learn from, of the same vocabulary and device.
        """
    def show_averaged_weights(self, averaged: bool) -> None:
        """
        Put the weights to evaluate and save into the model, or the trained back.
        """
    def state(self) -> dict[str, torch.Tensor]:
        """
        Flat buffers: weights, those of the optimizer, and ema where there is a mean.
        """
    def time_pass(self, ids: torch.Tensor, labels: torch.Tensor, repeats: typing.SupportsInt | typing.SupportsIndex = 3) -> float:
        """
        Median seconds of a forward and backward pass; the weights stay as they are.
        """
    def time_update(self, repeats: typing.SupportsInt | typing.SupportsIndex = 3) -> float:
        """
        Median seconds of norm, clipping and update; the weights stay as they are, but the optimizer's state moves on.
        """
    @property
    def graph(self) -> str:
        """
        On a GPU "captured" or "eager" with the reason; empty elsewhere.
        """
    @property
    def has_averaged_weights(self) -> bool:
        """
        Whether other weights than the trained ones are evaluated and saved.
        """
    @property
    def last_batches(self) -> list[tuple[list[int], list[int]]]:
        """
        Flat (ids, labels) of the last step's micro-batches.
        """
    @property
    def step(self) -> int:
        """
        Updates done.
        """
class LayerNorm:
    """
    The 2-norms of one layer in one step.
    """
    @property
    def gradient(self) -> float:
        """
        Before clipping.
        """
    @property
    def layer(self) -> str:
        """
        Such as layers.0, embed_tokens or norm.
        """
    @property
    def update(self) -> float:
        """
        Weights after the step minus those before it.
        """
    @property
    def weight(self) -> float:
        """
        After the step.
        """
class LayerNorms:
    """
    Measures one step layer by layer: before(), the step, after().
    """
    def __init__(self, decoder: Decoder) -> None:
        ...
    def after(self) -> list[LayerNorm]:
        """
        Norms of every layer, in order of declaration; drops the copy.
        """
    def before(self) -> None:
        """
        Keep a copy of the weights.
        """
class FiniteLook:
    """
    Looks for NaN and infinity in a thread of its own, beside what else is done.
    """
    def __init__(self, tensors: collections.abc.Sequence[tuple[str, torch.Tensor, str]]) -> None:
        """
        Begins with tensors (name, numbers as a file holds them, format).
        """
    def found(self) -> list[str]:
        """
        Helps to the end: the names of those in which there is such a number.
        """
class GgufFile:
    """
    A GGUF file: checked when opened, its tensors read when asked for. A malformed file raises DataError before anything is allocated.
    """
    def __init__(self, path: os.PathLike | str | bytes, beside: bool = False) -> None:
        """
        With `beside` a thread brings all of it into memory from now on.
        """
    def look(self) -> FiniteLook:
        """
        Begins to look for NaN and infinity in all tensors, beside what else is done.
        """
    def metadata(self, lists: bool = True) -> dict:
        """
        Keys and their values. Without lists an array of texts is a TextList, one of whole numbers of up to 63 bits is an array.
        """
    def raw(self, name: str) -> torch.Tensor:
        """
        The bytes of a tensor, as they are stored: its shape, but that rows are bytes.
        """
    def read_ahead(self) -> None:
        """
        Says that all tensors will be read soon.
        """
    def tensor(self, name: str) -> torch.Tensor:
        """
        A tensor in float32; one that is stored so shares the file's copy-on-write mapping.
        """
    def tensors(self) -> list[tuple[str, str, list[int]]]:
        """
        Name, type (such as Q4_1) and shape, as torch has it, of every tensor.
        """
    def types(self) -> dict[str, str]:
        """
        The type of every value: u32, str, …; [str] for an array.
        """
    @property
    def version(self) -> int:
        ...
class Span:
    """
    A recorded scope; times in nanoseconds.
    """
    @property
    def begin(self) -> int:
        ...
    @property
    def bytes(self) -> float:
        ...
    @property
    def end(self) -> int:
        ...
    @property
    def flops(self) -> float:
        ...
    @property
    def name(self) -> str:
        ...
    @property
    def team(self) -> int:
        """
        Threads that worked side by side at that time.
        """
    @property
    def thread(self) -> int:
        ...
class TokenClock:
    """
    An on_token for Engine.generate that only keeps the time.
    """
    def __init__(self, sequences: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        Starts the clock.
        """
    @property
    def seconds(self) -> list[float]:
        """
        From its making to the newest token of each sequence; 0: none came.
        """
class PromptCache:
    """
    What models remember of texts, from one call to the next.
    """
    def __init__(self, max_bytes: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        Keeps the texts that were used last.
        """
    def __len__(self) -> int:
        ...
    def clear(self) -> None:
        """
        Forgets all of them.
        """
    @property
    def bytes(self) -> int:
        """
        Memory in use.
        """
    @property
    def max_bytes(self) -> int:
        """
        Memory to use.
        """
class Engine:
    """
    Writes on from prompts. References the parameters and follows their changes.
    """
    def __init__(self, config: collections.abc.Mapping[str, bool | typing.SupportsInt | typing.SupportsIndex | typing.SupportsFloat | typing.SupportsIndex | str], parameters: collections.abc.Mapping[str, torch.Tensor], formats: collections.abc.Mapping[str, str] = {}, activations: str = 'float32', head_order: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex] = [], device: str = 'cpu', adapters: AdaptedModel | None = None) -> None:
        """
        From the values of a decoder's configuration and its parameters by canonical name. Matrices may be float32, float16, bfloat16, or bytes of blocks whose format is named. What they are multiplied with: float32; rounded: bf16 or int8. Of queries and keys row head_order[i] of each head is our number i; empty: row i. Parameters that do not lie on the device are copied there. Adapters stand beside them where a text names none.
        """
    def embedding(self, ids: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], adapters: AdaptedModel | None = None) -> torch.Tensor:
        """
        The mean over the tokens of the last hidden states behind the last norm, [hidden].
        """
    def generate(self, prompts: collections.abc.Sequence[collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]], options: collections.abc.Mapping[str, bool | typing.SupportsInt | typing.SupportsIndex | typing.SupportsFloat | typing.SupportsIndex | str], seeds: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], stop_ids: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex] = [], on_token: typing.Any = None, known_ids: typing.SupportsInt | typing.SupportsIndex = 0, draft: typing.Any = None, adapters: collections.abc.Sequence[AdaptedModel | None] | None = None, prompt_cache: typing.Any = None, logit_bias: collections.abc.Mapping[typing.SupportsInt | typing.SupportsIndex, typing.SupportsFloat | typing.SupportsIndex] = {}) -> list[tuple[list[int], str, int, int, int]]:
        """
        Returns (new ids, finish reason, tokens proposed, of these accepted, prompt tokens that the prompt cache knew) a prompt. on_token(sequence, id) is called for every token; when it returns False, its sequence ends. Only ids below known_ids are drawn; 0: any. adapters: one choice a prompt, None for the base alone. logit_bias: what is added to the logits of ids.
        """
    def logits(self, ids: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], stepwise: bool = False, bf16_prompts: bool = False, cache_precision: str = 'fp32') -> torch.Tensor:
        """
        Logits after every token, [time, vocab]: by one prefill, or token by token. bf16_prompts: as with prompt_precision "bf16". cache_precision: as the option.
        """
    def page_bytes(self, cache_precision: str = 'fp32') -> int:
        """
        Memory for the keys and values of 32 tokens.
        """
    def use(self, adapters: AdaptedModel | None) -> None:
        """
        These stand beside the weights now where a text names none.
        """
    @property
    def vocab_size(self) -> int:
        """
        How many ids the model has.
        """
class Scheduler:
    """
    One engine for many: requests join and leave at every token, in a thread of its own.
    """
    def __init__(self, engine: Engine, max_sequences: typing.SupportsInt | typing.SupportsIndex = 16, max_waiting: typing.SupportsInt | typing.SupportsIndex = 128, chunk_tokens: typing.SupportsInt | typing.SupportsIndex = 32, memory_bytes: typing.SupportsInt | typing.SupportsIndex = 0, kept_bytes: typing.SupportsInt | typing.SupportsIndex = 268435456, prompt_precision: str = 'fp32', cache_precision: str = 'fp32', constrain: typing.Any = None) -> None:
        """
        Starts it. max_sequences: texts that are read and written at once; max_waiting: requests beyond those. chunk_tokens: of a piece of a prompt, a multiple of 32. memory_bytes: for keys and values, 0: no limit; kept_bytes: of these for pieces of prompts that later requests may begin with. constrain(requests, ids, masks) says which tokens may come next in constrained requests, once a step for all: ids are the newest of each, [] before its first; it sets the bits of masks [requests, words of 32 ids] and returns an error a request, "": none.
        """
    def cancel(self, request: typing.SupportsInt | typing.SupportsIndex) -> bool:
        """
        Ends a request within one token, by "cancelled"; False: it has ended.
        """
    def close(self) -> None:
        """
        Ends all requests as cancelled, and the thread.
        """
    def events(self, timeout: typing.SupportsFloat | typing.SupportsIndex) -> list:
        """
        What happened since the last call, waiting up to timeout seconds for the first: (request, new ids, [(logprob, [(id, logprob)])], finish reason, prompt tokens that were known, error). The reason is "" while it goes on, then "eos", "length", "cancelled" or "error".
        """
    def stats(self) -> dict:
        """
        What runs, waits and was done.
        """
    def submit(self, prompt: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], options: collections.abc.Mapping[str, bool | typing.SupportsInt | typing.SupportsIndex | typing.SupportsFloat | typing.SupportsIndex | str], seed: typing.SupportsInt | typing.SupportsIndex = 0, stop_ids: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex] = [], known_ids: typing.SupportsInt | typing.SupportsIndex = 0, adapters: AdaptedModel | None = None, top_logprobs: typing.SupportsInt | typing.SupportsIndex = -1, constrained: bool = False, client: typing.SupportsInt | typing.SupportsIndex = 0, logit_bias: collections.abc.Mapping[typing.SupportsInt | typing.SupportsIndex, typing.SupportsFloat | typing.SupportsIndex] = {}) -> int:
        """
        Returns the request's number. top_logprobs: the log-probability of each new token and of so many likeliest ones; -1: none. client: whose it is; clients take turns, by tokens. logit_bias: what is added to the logits of ids. ConfigError: it can never be answered; QueueFullError: too many wait.
        """
def adapter_kinds() -> list[str]:
    """
    What AdapterOptions.kind may be.
    """
def block_of(format: str) -> tuple[int, int]:
    """
    How many numbers lie in a block of a format, and in how many bytes.
    """
def cpu_features() -> list[str]:
    """
    The instruction sets found on this CPU.
    """
def cpu_level() -> str:
    """
    The level of the CPU kernels in use; OMNIMA_CPU_ISA forces one.
    """
def dequantized(format: str, blocks: torch.Tensor, shape: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]) -> torch.Tensor:
    """
    float32 numbers from the bytes of their blocks.
    """
def document_losses(decoder: Decoder, tokens: torch.Tensor, ends: torch.Tensor, start_id: typing.SupportsInt | typing.SupportsIndex) -> tuple[list[float], list[int]]:
    """
    Of documents that lie one behind the other, ending at `ends`: the sum of each one's losses in nats, and of how many tokens. Longer ones are measured up to the model's context.
    """
def fill_parameter(parameter: torch.Tensor, format: str, stored: torch.Tensor) -> bool:
    """
    Writes numbers as a file holds them (blocks as bytes, or one by one) into a float32 parameter on the CPU, in one pass. False: a NaN or an infinity is among them.
    """
def forget(tensor: torch.Tensor) -> None:
    """
    Says that a tensor in a file's mapping has been used: its memory leaves the process, and what was written into it is lost. Other tensors are left alone.
    """
def formats() -> list[str]:
    """
    Names of the number formats; our families have members of other sizes, too.
    """
def generate_option_fields() -> list[dict]:
    """
    Name, default, meaning and bounds of every generation option.
    """
def give_memory_back() -> None:
    """
    Give memory that was freed, and that the allocator keeps, back to the system.
    """
def has_gpu_kernels() -> bool:
    """
    Whether this build has kernels of its own for GPUs.
    """
def nearest_name(name: str, names: collections.abc.Sequence[str]) -> str:
    """
    The one of `names` nearest to `name` by edit distance.
    """
def nonfinite_tensors(tensors: collections.abc.Mapping[str, torch.Tensor]) -> list[str]:
    """
    Names of the tensors that hold a NaN or an infinity.
    """
def optimizer_names() -> list[str]:
    """
    What StepOptions.optimizer may be.
    """
def page_out(tensor: torch.Tensor) -> None:
    """
    Says that a tensor of a file has been used: its memory may go, its values stay.
    """
def process_logits(logits: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex], seen: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], options: collections.abc.Mapping[str, bool | typing.SupportsInt | typing.SupportsIndex | typing.SupportsFloat | typing.SupportsIndex | str], written: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex] = [], logit_bias: collections.abc.Mapping[typing.SupportsInt | typing.SupportsIndex, typing.SupportsFloat | typing.SupportsIndex] = {}) -> list[float]:
    """
    The logits after biases, penalties, temperature, top-k, top-p and min-p. Of the ids seen in a text, those that were written follow the others.
    """
def quantize_matrix(method: str, format: str, weight: torch.Tensor, moments: torch.Tensor | None = None) -> torch.Tensor:
    """
    A matrix float32 [outputs, inputs] as blocks that a method chooses, uint8 [outputs, bytes of a row]. moments [inputs, inputs]: the mean of x x^T of what it is multiplied with.
    """
def quantized(format: str, numbers: torch.Tensor) -> torch.Tensor:
    """
    The bytes of the blocks that hold float32 numbers.
    """
def read_safetensors(path: os.PathLike | str | bytes, ahead: bool = False) -> dict[str, torch.Tensor]:
    """
    Tensors of a safetensors file by name. They share a copy-on-write mapping of the file, which with `ahead` is on its way into memory at once. A malformed file raises DataError before anything is allocated.
    """
def read_safetensors_metadata(path: os.PathLike | str | bytes) -> dict[str, str]:
    """
    The metadata of a safetensors file: text by text.
    """
def row_bytes(format: str, inputs: typing.SupportsInt | typing.SupportsIndex) -> int:
    """
    Bytes of a row of so many numbers.
    """
def schedule_names() -> list[str]:
    """
    What StepOptions.schedule may be.
    """
def split_pattern_names() -> list[str]:
    """
    Names of the patterns by which byte-level tokenizers cut text.
    """
def split_text(pattern: str, text: typing.Any) -> list:
    """
    The pieces that a pattern cuts a text into.
    """
def start_recording() -> None:
    """
    Record scopes from now on.
    """
def stop_recording() -> list[Span]:
    """
    Stop, and return the spans since start_recording().
    """
def uniform(seed: typing.SupportsInt | typing.SupportsIndex, step: typing.SupportsInt | typing.SupportsIndex) -> float:
    """
    The number in [0, 1) that a sequence with this seed draws at this step.
    """
def why_not_on_gpu(config: collections.abc.Mapping[str, bool | typing.SupportsInt | typing.SupportsIndex | typing.SupportsFloat | typing.SupportsIndex | str]) -> str:
    """
    Why a decoder of this configuration cannot write on a GPU; empty: it can.
    """
def write_gguf(path: os.PathLike | str | bytes, metadata: collections.abc.Sequence[tuple[str, str, typing.Any]], tensors: collections.abc.Sequence[tuple[str, str, torch.Tensor]]) -> None:
    """
    Writes keys (name, type, value) and tensors (name, format such as q8_0, numbers or uint8 rows of its blocks) aside, flushes them to the disk and renames the file into place.
    """
def write_safetensors(path: os.PathLike | str | bytes, tensors: collections.abc.Mapping[str, torch.Tensor], metadata: collections.abc.Mapping[str, str] = {}) -> None:
    """
    Writes tensors aside, flushes them to the disk and renames the file into place; on an error a file that was there before is unchanged.
    """
built_with_torch: str = ...
