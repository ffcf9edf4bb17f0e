"""A decoder as PyTorch tutorials write it (LayerNorm, GELU, tied embeddings), eager or compiled."""

from __future__ import annotations

from typing import Any

from omnima.benchmarking.shapes import Shape
from omnima.benchmarking.systems import Step
from omnima.benchmarking.systems.torch_loop import step_of


def decoder(shape: Shape) -> Any:
    """Return a module that gives the loss of (ids, labels)."""
    import torch
    from torch import nn
    from torch.nn import functional

    m = shape.model
    width, heads = m["hidden_size"], m["num_attention_heads"]
    queries = heads * m["head_dim"]

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.between = (nn.LayerNorm(width, bias=False) for _ in range(2))
            self.qkv = nn.Linear(width, 3 * queries, bias=False)
            self.out = nn.Linear(queries, width, bias=False)
            self.up = nn.Linear(width, shape.gelu_width, bias=False)
            self.down = nn.Linear(shape.gelu_width, width, bias=False)

        def forward(self, x: Any) -> Any:
            parts = self.qkv(self.before(x)).unflatten(-1, (3, heads, -1))
            q, k, v = (part.transpose(1, 2) for part in parts.unbind(2))
            mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(mixed.transpose(1, 2).flatten(2))
            return x + self.down(functional.gelu(self.up(self.between(x))))

    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(m["vocab_size"], width)
            self.places = nn.Embedding(shape.context, width)
            self.layers = nn.Sequential(*(Layer() for _ in range(m["num_hidden_layers"])))
            self.norm = nn.LayerNorm(width, bias=False)
            for each in self.parameters():
                if each.dim() > 1:
                    nn.init.normal_(each, std=0.02)

        def forward(self, ids: Any, labels: Any) -> Any:
            x = self.layers(self.tokens(ids) + self.places.weight[: ids.shape[1]])
            logits = functional.linear(self.norm(x), self.tokens.weight)
            return functional.cross_entropy(logits.flatten(0, 1), labels.flatten())

    torch.manual_seed(0)
    return Decoder()


def build(job: dict[str, Any]) -> tuple[Step, int]:
    """Return the step of a job and the number of parameters."""
    import torch

    model = decoder(Shape(**job["shape"]))
    loss_of = torch.compile(model) if job["system"] == "torch-compile" else model
    return step_of(job, model, loss_of)
