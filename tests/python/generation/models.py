"""Small random models as parameters by canonical name, and the same weights in transformers."""

from __future__ import annotations

import dataclasses

import torch

from omnima import _core

BASE = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "max_position_embeddings": 96,
}
LLAMA = {
    "plain": {},
    "grouped": {"num_key_value_heads": 2},
    "multi-query": {"num_key_value_heads": 1},
    "untied": {"tie_word_embeddings": False},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "wide-heads": {"head_dim": 16, "num_key_value_heads": 3, "rope_theta": 500.0, "norm_eps": 1e-3},
}
GPT2 = {
    "norm": "layer_norm",
    "positions": "learned",
    "activation": "gelu_tanh",
    "attention_bias": True,
    "mlp_bias": True,
    "intermediate_size": 192,
}


def llama(seed=0, **changes):
    """A transformers Llama with random weights, its config and its parameters."""
    from transformers import LlamaConfig, LlamaForCausalLM

    values = {**BASE, **changes}
    renamed = {k: v for k, v in values.items() if k != "norm_eps"}
    torch.manual_seed(seed)
    config = LlamaConfig(
        **renamed,
        rms_norm_eps=values.get("norm_eps", 1e-5),
        initializer_range=0.15,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
        **({} if "tie_word_embeddings" in values else {"tie_word_embeddings": True}),
    )
    model = LlamaForCausalLM(config).eval()
    scatter_(model)
    return model, values, dict(model.named_parameters())


def gpt2(seed=0):
    """A transformers GPT-2 with random weights; its parameters under the canonical names."""
    from transformers import GPT2Config, GPT2LMHeadModel

    values = {**BASE, **GPT2}
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=values["vocab_size"],
        n_embd=values["hidden_size"],
        n_layer=values["num_hidden_layers"],
        n_head=values["num_attention_heads"],
        n_positions=values["max_position_embeddings"],
        initializer_range=0.15,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    model = GPT2LMHeadModel(config).eval()
    scatter_(model)
    return model, values, dict(canonical_gpt2(model))


def canonical_gpt2(model):
    """GPT-2 keeps [in, out] matrices and one matrix for queries, keys and values."""
    body = model.transformer
    yield "model.embed_tokens.weight", body.wte.weight
    yield "model.embed_positions.weight", body.wpe.weight
    for index, block in enumerate(body.h):
        at = f"model.layers.{index}."
        yield at + "input_layernorm.weight", block.ln_1.weight
        yield at + "input_layernorm.bias", block.ln_1.bias
        yield at + "post_attention_layernorm.weight", block.ln_2.weight
        yield at + "post_attention_layernorm.bias", block.ln_2.bias
        weights = block.attn.c_attn.weight.t().chunk(3)
        biases = block.attn.c_attn.bias.chunk(3)
        for name, weight, bias in zip("qkv", weights, biases, strict=True):
            yield f"{at}self_attn.{name}_proj.weight", weight.contiguous()
            yield f"{at}self_attn.{name}_proj.bias", bias.contiguous()
        for name, part in {
            "self_attn.o_proj": block.attn.c_proj,
            "mlp.up_proj": block.mlp.c_fc,
            "mlp.down_proj": block.mlp.c_proj,
        }.items():
            yield f"{at}{name}.weight", part.weight.t().contiguous()
            yield f"{at}{name}.bias", part.bias
    yield "model.norm.weight", body.ln_f.weight
    yield "model.norm.bias", body.ln_f.bias


def scatter_(model):
    """Norm weights and biases away from one and zero, so that a forgotten one shows."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter += 0.1 * torch.randn_like(parameter)
            assert parameter.dtype == torch.float32, name


def random_parameters(seed=0, **changes):
    """The values and parameters of any configuration."""
    c = {**BASE, "norm": "rms_norm", "positions": "rotary", "activation": "swiglu", **changes}
    heads, width = c["num_attention_heads"], c["hidden_size"]
    size = c.get("head_dim") or width // heads
    keys = (c.get("num_key_value_heads") or heads) * size
    inner = c["intermediate_size"]
    shapes = {"model.embed_tokens.weight": (c["vocab_size"], width)}
    if c["positions"] == "learned":
        shapes["model.embed_positions.weight"] = (c["max_position_embeddings"], width)
    norms = ["model.norm"]
    for layer in range(c["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        norms += [at + "input_layernorm", at + "post_attention_layernorm"]
        linears = {
            "self_attn.q_proj": (heads * size, width),
            "self_attn.k_proj": (keys, width),
            "self_attn.v_proj": (keys, width),
            "self_attn.o_proj": (width, heads * size),
            "mlp.up_proj": (inner, width),
            "mlp.down_proj": (width, inner),
        }
        if c["activation"] == "swiglu":
            linears["mlp.gate_proj"] = (inner, width)
        for name, shape in linears.items():
            shapes[f"{at}{name}.weight"] = shape
            if c.get("attention_bias" if "attn" in name else "mlp_bias"):
                shapes[f"{at}{name}.bias"] = (shape[0],)
    for name in norms:
        shapes[name + ".weight"] = (width,)
        if c["norm"] == "layer_norm":
            shapes[name + ".bias"] = (width,)
    if not c.get("tie_word_embeddings", True):
        shapes["lm_head.weight"] = (c["vocab_size"], width)
    generator = torch.Generator().manual_seed(seed)
    tensors = {n: 0.15 * torch.randn(s, generator=generator) for n, s in shapes.items()}
    return c, {n: t + 1 if n.endswith("norm.weight") else t for n, t in tensors.items()}


@dataclasses.dataclass
class Config:
    content: dict

    def values(self):
        return self.content


class Core:
    """Stands for the core's decoder: a configuration and named parameters."""

    def __init__(self, values, parameters):
        self.config = Config(values)
        self.parameters = parameters

    def named_parameters(self):
        return list(self.parameters.items())


class Model:
    def __init__(self, seed=0, **changes):
        self.core = Core(*random_parameters(seed, **changes))

    @property
    def engine(self):
        return _core.Engine(self.core.config.values(), self.core.parameters)


class ByteTokenizer:
    """Bytes as ids; begin and end after them."""

    bos_id, eos_id, pad_id, vocab_size = 256, 257, 258, 259

    def encode(self, text, add_bos=False, add_eos=False):
        ids = list(text.encode())
        return [self.bos_id] * add_bos + ids + [self.eos_id] * add_eos

    def decode(self, ids):
        return bytes(i for i in ids if i < 256).decode(errors="replace")

    def stream_decoder(self, *, after=()):
        import codecs

        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

        class Stream:
            def push(self, token):
                return decoder.decode(bytes([token]) if token < 256 else b"")

            def finish(self):
                return decoder.decode(b"", final=True)

        return Stream()
