"""50 tokens from the 10M model's shape, batch 1, float32: Omnima beside transformers.

python benchmarks/generate.py [--rounds N] [--threads N]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings

import torch

SHAPE = {
    "vocab_size": 8192,
    "hidden_size": 384,
    "intermediate_size": 1024,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
}
PROMPT = list(range(10, 18))
NEW = 50


def build():
    """The same random weights as a transformers model and as our engine."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from omnima import _core

    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE, pad_token_id=0, eos_token_id=None)).eval()
    engine = _core.Engine({**SHAPE, "norm_eps": 1e-6}, dict(model.named_parameters()))
    return model, engine


def seconds(call):
    began = time.perf_counter()
    result = call()
    return time.perf_counter() - began, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=0, help="0: as torch chooses")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    model, engine = build()
    prompt = torch.tensor([PROMPT])
    mask = torch.ones_like(prompt)

    def theirs():
        output = model.generate(prompt, attention_mask=mask, max_new_tokens=NEW, do_sample=False)
        return output[0, len(PROMPT) :].tolist()

    def ours():
        return engine.generate([PROMPT], {"max_new_tokens": NEW}, [0])[0][0]

    def ours_drawing():
        options = {"max_new_tokens": NEW, "temperature": 0.8, "top_p": 0.95}
        return engine.generate([PROMPT], options, [0])[0][0]

    rounds = {"omnima": ours, "omnima_top_p": ours_drawing, "transformers": theirs}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for call in rounds.values():
            call()
        times = {name: [] for name in rounds}
        for _ in range(arguments.rounds):  # in turns, so that a busy machine is fair to all
            for name, call in rounds.items():
                times[name].append(seconds(call)[0])
        same = ours() == theirs()
    report = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "threads": torch.get_num_threads(),
        "same_ids": same,
        **{f"{name}_ms": round(1e3 * statistics.median(t), 1) for name, t in times.items()},
        **{f"{name}_best_ms": round(1e3 * min(t), 1) for name, t in times.items()},
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
