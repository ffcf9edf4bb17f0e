"""Adapters beside PEFT's: logits, losses, gradients of the same weights; directories both ways."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import omnima

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

from .drawn import relative  # noqa: E402

VOCAB, HIDDEN, LAYERS, HEADS = 61, 32, 2, 4
TOLERANCE = 1e-5


def bases() -> dict[str, Any]:
    ids = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    common = {"vocab_size": VOCAB, "initializer_range": 0.1, **ids}
    return {
        "llama": transformers.LlamaConfig(
            hidden_size=HIDDEN, intermediate_size=48, num_hidden_layers=LAYERS,
            num_attention_heads=HEADS, num_key_value_heads=2, max_position_embeddings=32,
            tie_word_embeddings=True, **common,
        ),
        "gpt2": transformers.GPT2Config(
            n_embd=HIDDEN, n_layer=LAYERS, n_head=HEADS, n_positions=32, resid_pdrop=0.0,
            embd_pdrop=0.0, attn_pdrop=0.0, **common,
        ),
        "neox": transformers.GPTNeoXConfig(
            hidden_size=HIDDEN, intermediate_size=64, num_hidden_layers=LAYERS,
            num_attention_heads=HEADS, max_position_embeddings=32, rotary_pct=0.5,
            tie_word_embeddings=False, use_parallel_residual=True, **common,
        ),
        "phi3": transformers.Phi3Config(
            hidden_size=HIDDEN, intermediate_size=48, num_hidden_layers=LAYERS,
            num_attention_heads=HEADS, num_key_value_heads=2, max_position_embeddings=32,
            original_max_position_embeddings=32, tie_word_embeddings=False, **common,
        ),
    }  # fmt: skip


KINDS = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "pissa": {"init_lora_weights": "pissa"},
    "olora": {"init_lora_weights": "olora"},
    "ia3": {},
    "vera": {"rank": 4},
    "bitfit": {},
    "adalora": {},
    "prompt": {},
    "prefix": {},
}
PLAIN = ("ia3", "bitfit", "prompt", "prefix")  # without a rank
TOKENS = 3  # virtual ones


@pytest.fixture(params=["llama", "gpt2", "neox", "phi3"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    torch.manual_seed(3)
    model = transformers.AutoModelForCausalLM.from_config(bases()[request.param])
    for name, each in model.named_parameters():
        if name.endswith("bias"):  # which begin as zeros
            torch.nn.init.normal_(each, std=0.2)
    model.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def theirs_of(base: Path, kind: str = "lora", **options: Any) -> Any:
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    everywhere = {"target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    if kind == "vera":
        config = peft.VeraConfig(r=options["rank"], projection_prng_key=11, **everywhere)
    elif kind == "bitfit":
        config = peft.LoraConfig(r=1, lora_alpha=1, bias="lora_only", **everywhere)
    elif kind == "adalora":
        config = peft.AdaLoraConfig(init_r=4, target_r=2, total_step=10, **everywhere)
    elif kind in ("prompt", "prefix"):
        of_kind = {"prompt": peft.PromptTuningConfig, "prefix": peft.PrefixTuningConfig}[kind]
        config = of_kind(num_virtual_tokens=TOKENS, task_type="CAUSAL_LM")
    else:
        config = peft.LoraConfig(r=4, lora_alpha=6, **everywhere, **options)
    if kind == "ia3":
        ends = ["down_proj", "mlp.c_proj", "dense_4h_to_h"]
        here = [each for each in ends if any(n.endswith(each) for n, _ in model.named_modules())]
        values = ["k_proj", "v_proj", "c_attn", "query_key_value", "qkv_proj"]
        names = [each for each in values if any(n.endswith(each) for n, _ in model.named_modules())]
        config = peft.IA3Config(
            task_type="CAUSAL_LM", target_modules=[*here, *names], feedforward_modules=here
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = peft.get_peft_model(model, config)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, each in made.named_parameters():
            if each.requires_grad and not (kind == "bitfit" and "lora_" in name):
                spread = 0.05 if "magnitude" in name else 0.1
                each.add_(spread * torch.randn(each.shape, generator=generator))
    return made.eval()


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(VOCAB, (3, 12), generator=torch.Generator().manual_seed(1))
    return ids[:, :-1], ids[:, 1:]


def gradients_of(model: Any) -> dict[str, torch.Tensor]:
    """PEFT's gradients by the names that its files have."""
    grads = {name: each.grad for name, each in model.named_parameters() if each.requires_grad}
    short = {name.replace(".default", ""): each for name, each in grads.items()}
    if list(short) == ["prompt_encoder.embedding.weight"]:
        return {"prompt_embeddings": short.popitem()[1]}
    if any(name.endswith(".bias") for name in short):  # beside a product that is zero
        short = {name: each for name, each in short.items() if "lora_" not in name}
    return {name.replace("vector.weight", "vector"): each for name, each in short.items()}


def our_gradients(model: omnima.Model, folder: Path) -> dict[str, torch.Tensor]:
    """Ours, written as an adapter is: rows of fused modules then lie as theirs."""
    from safetensors.torch import load_file

    for _, each in model.adapter_parameters(model.core.learning_adapter):
        with torch.no_grad():
            each.copy_(each.grad)
    model.save_adapter(folder)
    found = load_file(folder / "adapter_model.safetensors")
    rests = ["base_model.vera_A", "base_model.vera_B"]
    if any(name.endswith(".bias") for name in found):
        rests += [name for name in found if "lora_" in name]
    return {name: each for name, each in found.items() if name not in rests}


def has_biases(base: Path) -> bool:
    names = [name for name, _ in omnima.Model.from_pretrained(base).named_parameters()]
    return any(name.endswith("down_proj.bias") for name in names)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_weights_give_the_same_figures(kind: str, base: Path, tmp_path: Path) -> None:
    if kind == "olora" and "gpt2" in (base / "config.json").read_text():
        pytest.skip("PEFT takes the QR decomposition of a Conv1D's transpose: its A has no fit")
    if kind == "bitfit" and not has_biases(base):
        pytest.skip("PEFT has no biases for layers without any")
    theirs = theirs_of(base, kind, **KINDS[kind])
    theirs.save_pretrained(tmp_path / "adapter")
    ours = omnima.Model.from_pretrained(base)
    ours.load_adapter(tmp_path / "adapter")
    ids, labels = batch()
    expected = theirs(ids).logits[:, -ids.shape[1] :]  # behind a prompt, if there is one
    assert relative(ours(ids), expected) < TOLERANCE
    loss = torch.nn.functional.cross_entropy(expected.flatten(0, 1), labels.flatten())
    loss.backward()
    own = ours.loss(ids, labels)
    assert abs(own.item() - loss.item()) < TOLERANCE * loss.item()
    own.backward()
    assert all(each.grad is None for _, each in ours.named_parameters())
    wanted = gradients_of(theirs)
    found = our_gradients(ours, tmp_path / "gradients")
    if kind in ("pissa", "olora"):  # written beside what they began with, which has none
        found = {
            name: each[:4] if "lora_A" in name else each[:, :4] for name, each in found.items()
        }
    assert set(found) == set(wanted)
    for name, each in found.items():
        assert relative(each, wanted[name]) < TOLERANCE, name


@pytest.mark.parametrize("kind", KINDS)
def test_peft_computes_the_same_with_an_adapter_of_ours(
    kind: str, base: Path, tmp_path: Path
) -> None:
    if kind == "bitfit" and not has_biases(base):
        pytest.skip("PEFT has no biases for layers without any")
    ours = omnima.Model.from_pretrained(base)
    options = {} if kind in PLAIN else {"rank": 3} if kind == "vera" else {"rank": 3, "alpha": 5}
    if kind in ("prompt", "prefix"):
        options = {"virtual_tokens": TOKENS}
    ours.add_adapter(kind, seed=7, **options)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for _, each in ours.adapter_parameters():
            each.add_(0.1 * torch.randn(each.shape, generator=generator))
    ours.save_adapter(tmp_path / "adapter")
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(model, tmp_path / "adapter").eval()
    ids, _ = batch()
    with torch.no_grad():
        assert relative(ours(ids), theirs(ids).logits[:, -ids.shape[1] :]) < TOLERANCE
        if kind in ("prompt", "prefix"):
            return
        ours.merge_adapters()
        assert relative(ours(ids), theirs.merge_and_unload()(ids).logits) < TOLERANCE


def test_patterns_of_ranks_are_read_and_written(base: Path, tmp_path: Path) -> None:
    first = next(iter(omnima.adapters.linear_modules(
        omnima.Model.from_pretrained(base).config.to_dict()
    ))).rpartition(".")[2]  # fmt: skip
    theirs = theirs_of(base, rank_pattern={first: 2}, alpha_pattern={first: 8})
    theirs.save_pretrained(tmp_path / "adapter")
    ours = omnima.Model.from_pretrained(base)
    ours.load_adapter(tmp_path / "adapter")
    ids, _ = batch()
    with torch.no_grad():
        expected = theirs(ids).logits
        assert relative(ours(ids), expected) < TOLERANCE
        ours.save_adapter(tmp_path / "again")
        model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        again = peft.PeftModel.from_pretrained(model, tmp_path / "again").eval()
        assert relative(again(ids).logits, expected) < TOLERANCE


def test_a_weighted_combination_is_that_of_peft(tmp_path: Path) -> None:
    torch.manual_seed(3)
    transformers.AutoModelForCausalLM.from_config(bases()["llama"]).save_pretrained(tmp_path / "b")
    ours = omnima.Model.from_pretrained(tmp_path / "b")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "b", dtype=torch.float32)
    for number, name in enumerate(("one", "two")):
        ours.add_adapter(name=name, rank=3, alpha=3, seed=number)
        with torch.no_grad():
            for _, each in ours.adapter_parameters(name):
                each.add_(0.1 * torch.randn(each.shape))
        ours.save_adapter(tmp_path / name)
        load = theirs.load_adapter if number else None
        theirs = (
            peft.PeftModel.from_pretrained(theirs, tmp_path / name, adapter_name=name)
            if load is None
            else (load(tmp_path / name, adapter_name=name), theirs)[1]
        )
    theirs.add_weighted_adapter(["one", "two"], [0.7, 0.4], "both", combination_type="cat")
    theirs.set_adapter("both")
    ours.set_adapters({"one": 0.7, "two": 0.4})
    ids, _ = batch()
    with torch.no_grad():
        assert relative(ours(ids), theirs.eval()(ids).logits) < TOLERANCE


def test_vera_draws_the_matrices_that_peft_draws(base: Path, tmp_path: Path) -> None:
    theirs = theirs_of(base, "vera", rank=4)
    theirs.peft_config["default"].save_projection = True
    theirs.save_pretrained(tmp_path / "with")
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "with"
    tensors = load_file(folder / "adapter_model.safetensors")
    for name in ("base_model.vera_A", "base_model.vera_B"):
        del tensors[name]
    save_file(tensors, folder / "adapter_model.safetensors")
    config = folder / "adapter_config.json"
    config.write_text(
        config.read_text().replace('"save_projection": true', '"save_projection": false')
    )
    ours = omnima.Model.from_pretrained(base)
    ours.load_adapter(folder)
    ids, _ = batch()
    with torch.no_grad():
        assert relative(ours(ids), theirs(ids).logits) < TOLERANCE


def test_a_prefix_of_a_network_is_read_as_what_it_made(base: Path, tmp_path: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = peft.PrefixTuningConfig(
        num_virtual_tokens=TOKENS, prefix_projection=True, encoder_hidden_size=8,
        task_type="CAUSAL_LM",
    )  # fmt: skip
    theirs = peft.get_peft_model(model, config).eval()
    theirs.save_pretrained(tmp_path)
    ours = omnima.Model.from_pretrained(base)
    ours.load_adapter(tmp_path)
    ids, _ = batch()
    with torch.no_grad():
        assert relative(ours(ids), theirs(ids).logits) < TOLERANCE


STEPS, RATE = 10, 0.1


def test_adalora_moves_its_budget_as_peft_does(base: Path, tmp_path: Path) -> None:
    from omnima import _core

    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = peft.AdaLoraConfig(
        init_r=4, target_r=2, tinit=2, tfinal=3, deltaT=2, total_step=STEPS, lora_alpha=8,
        orth_reg_weight=0.3, target_modules="all-linear", task_type="CAUSAL_LM",
    )  # fmt: skip
    theirs = peft.get_peft_model(model, config).eval()
    ours = omnima.Model.from_pretrained(base)
    ours.add_adapter(
        "adalora", rank=2, initial_rank=4, alpha=8, budget_start=0.2, budget_end=0.7,
        budget_every=2, orthogonality=0.3,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, each in ours.adapter_parameters():
            if name.endswith("lora_E"):
                each.add_(0.1 * torch.randn(each.shape, generator=generator))
    ours.save_adapter(tmp_path / "begin")
    peft.set_peft_model_state_dict(theirs, loaded(tmp_path / "begin"))
    options = _core.StepOptions()
    options.optimizer, options.schedule, options.lr = "sgd", "constant", RATE
    options.momentum, options.weight_decay, options.clip_norm = 0.0, 0.0, 0.0
    options.total_steps = STEPS
    step = _core.TrainStep(ours.core, options)
    learned = [each for each in theirs.parameters() if each.requires_grad]
    optimizer = torch.optim.SGD(learned, lr=RATE)
    ids, _ = batch()
    for number in range(1, STEPS + 1):
        step.run_batches([(ids[:, :-1].contiguous(), ids[:, 1:].contiguous())])
        theirs(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        theirs.base_model.update_and_allocate(number)
        optimizer.zero_grad()
        ours.save_adapter(tmp_path / str(number))
        found, wanted = loaded(tmp_path / str(number)), dict(theirs.named_parameters())
        for name, each in found.items():
            expected = wanted[f"{name}.default"].detach()
            if expected.any():
                assert relative(each, expected) < 2e-4, (number, name)
            if name.endswith("lora_E"):
                assert torch.equal(each == 0, expected == 0), (number, name)
    kept = sum(int((each != 0).sum()) for name, each in found.items() if name.endswith("lora_E"))
    assert kept == 2 * sum(name.endswith("lora_E") for name in found)


def loaded(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return dict(load_file(folder / "adapter_model.safetensors"))


def test_a_bottleneck_computes_as_plain_torch_does(base: Path, tmp_path: Path) -> None:
    ours = omnima.Model.from_pretrained(base)
    ours.add_adapter("bottleneck", rank=5)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for _, each in ours.adapter_parameters():
            each.add_(0.2 * torch.randn(each.shape, generator=generator))
    ours.save_adapter(tmp_path)
    again = omnima.Model.from_pretrained(base)
    again.load_adapter(tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    leaves = {name: each.requires_grad_() for name, each in loaded(tmp_path).items()}

    def behind(module: str) -> Any:
        def hook(_module: Any, _input: Any, y: torch.Tensor) -> torch.Tensor:
            part = {
                name: leaves[f"base_model.model.{module}.bottleneck_{name}"]
                for name in ("down.weight", "down.bias", "up.weight", "up.bias")
            }
            linear = torch.nn.functional.linear
            low = torch.nn.functional.gelu(linear(y, part["down.weight"], part["down.bias"]))
            return y + linear(low, part["up.weight"], part["up.bias"])

        return hook

    modules = {name.split(".bottleneck")[0].removeprefix("base_model.model.") for name in leaves}
    for name in modules:
        theirs.get_submodule(name).register_forward_hook(behind(name))
    ids, labels = batch()
    expected = theirs(ids).logits
    assert relative(ours(ids), expected) < TOLERANCE
    assert torch.equal(again(ids), ours(ids))
    torch.nn.functional.cross_entropy(expected.flatten(0, 1), labels.flatten()).backward()
    ours.loss(ids, labels).backward()
    for name, each in our_gradients(ours, tmp_path / "gradients").items():
        assert relative(each, leaves[name].grad) < TOLERANCE, name
