"""`omnima generate`: one text, many prompts from a file, or a conversation at the terminal."""

from __future__ import annotations

from typing import Any

import typer

from omnima.cli.model_options import (
    activations_option,
    cache_option,
    device_option,
    model_argument,
    strict_option,
)
from omnima.cli.output import print_json
from omnima.cli.sampling_options import (
    frequency_penalty_option,
    min_p_option,
    presence_penalty_option,
    repetition_penalty_option,
    temperature_option,
    top_k_option,
    top_p_option,
)


def generate(
    directory: str = model_argument(),
    prompt: str | None = typer.Option(None, help="the text to continue"),
    prompts_file: str | None = typer.Option(
        None, help="a UTF-8 file with a prompt a line, written as one batch"
    ),
    interactive: bool = typer.Option(False, "--interactive", help="read prompts, keep the history"),
    stream: bool = typer.Option(False, "--stream", help="show the text while it is written"),
    max_new_tokens: int = typer.Option(128, min=1, help="tokens to write at most"),
    temperature: float = temperature_option(),
    top_k: int = top_k_option(),
    top_p: float = top_p_option(),
    min_p: float = min_p_option(),
    repetition_penalty: float = repetition_penalty_option(),
    frequency_penalty: float = frequency_penalty_option(),
    presence_penalty: float = presence_penalty_option(),
    stop: list[str] | None = typer.Option(  # noqa: B008 - Typer's way to say it
        None, help="end before this text; may be repeated"
    ),
    language: str | None = typer.Option(
        None, help="the language to write in, of a model trained with language tokens, such as fr"
    ),
    suffix: str | None = typer.Option(
        None, help="what comes after the gap, of a model trained with fill_in_middle"
    ),
    adapter: str | None = typer.Option(
        None, help="write with this adapter, a directory of PEFT, beside the weights"
    ),
    seed: int = typer.Option(0, min=0, help="same seed, same text"),
    activations: str = activations_option(),
    device: str = device_option(),
    speculate: str | None = typer.Option(
        None, help="guess ahead, for the same text sooner: lookup, or a smaller model"
    ),
    speculative_tokens: int = typer.Option(15, min=1, max=64, help="tokens to guess at most"),
    prompt_precision: str = typer.Option(
        "fp32", help="of a long prompt's products: fp32, or bf16 where the CPU has it"
    ),
    cache_precision: str = cache_option(),
    strict: bool = strict_option(),
    json: bool = typer.Option(False, "--json", help="print the result as one JSON object"),
) -> None:
    """Write text with a trained model."""
    from omnima.cli import writing

    sampling: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "frequency_penalty": frequency_penalty,
        "presence_penalty": presence_penalty,
        "stop": tuple(stop or ()),
        "seed": seed,
        "prompt_precision": prompt_precision,
        "cache_precision": cache_precision,
    }
    writing.check_way(prompt, prompts_file, interactive, json, language, suffix)
    model, tokenizer = writing.open_model(directory, strict, activations, device, adapter)
    if speculate is not None:
        sampling["speculation"] = writing.speculation_of(speculate, strict, device)
        sampling["speculative_tokens"] = speculative_tokens
    if interactive:
        writing.converse(model, tokenizer, sampling, prompt)
        return
    if prompts_file is not None:
        prompts = writing.read_prompts(prompts_file)
        begun = writing.as_trained(tokenizer, prompts, language)
        results = writing.write_all(model, tokenizer, begun, sampling)
        if json:
            print_json({"generations": results})
            return
        for given, result in zip(prompts, results, strict=True):
            typer.echo(f"{given}{result['text']}\n")
        return
    assert prompt is not None
    show = None if json or not stream else writing.echo
    if show is not None:
        show(prompt)
    begun = writing.as_trained(tokenizer, [prompt], language, suffix)
    result = writing.write_all(model, tokenizer, begun, sampling, show)[0]
    if json:
        print_json(result)
    elif show is not None:
        typer.echo("")
    else:
        typer.echo(prompt + result["text"])
