"""The commands as a user types them: real processes on paths with spaces and Unicode, the contract
of --json key by key, and bad input of every kind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from .conftest import Leave, Says

Number = (int, float)
TRAIN = {
    "steps": int,
    "tokens": int,
    "seconds": Number,
    "tokens_per_s": Number,
    "train_loss": float,
    "val_loss": float,
    "val_perplexity": float,
    "val_bits_per_byte": float,
    "entropy_floor": float,
    "parameters": int,
    "peak_memory_bytes": int,
    "checkpoint": str,
}
EVAL = {"loss": float, "perplexity": float, "bits_per_byte": float, "tokens": int, "bytes": int}
GENERATE = {"text": str, "prompt_tokens": int, "new_tokens": int, "seconds": float}
QUICK = (
    "--set hidden_size=32 --set num_hidden_layers=1 --set num_attention_heads=2 "
    "--tokenizer byte --context 48 --batch-size 2 --precision fp32"
).split()


def omnima(*arguments: object, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "omnima", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, encoding="utf-8", input=stdin, check=False)


def the_object(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The one JSON object that standard output must be, to the last byte."""
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("}\n") and done.stdout.count("\n") == 1
    return dict(json.loads(done.stdout, parse_constant=pytest.fail))


def check(result: dict[str, Any], contract: dict[str, Any]) -> None:
    assert set(result) == set(contract)
    for key, kind in contract.items():
        assert isinstance(result[key], kind) and not isinstance(result[key], bool), key


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mein größter Ordner 日本")


@pytest.fixture(scope="module")
def trained(place: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    out = place / "erstes Modell 🦊"
    data = ["--data", "tinyworld:60KB", "--steps", "6", "--out", out]
    return out, omnima("train", *data, *QUICK, "--json")


@pytest.fixture(scope="module")
def model(trained: tuple[Path, subprocess.CompletedProcess[str]]) -> Path:
    assert trained[1].returncode == 0, trained[1].stderr
    return trained[0]


def test_train_keeps_its_contract(
    trained: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    out, done = trained
    result = the_object(done)
    check(result, TRAIN)
    assert result["steps"] == 6 and result["tokens"] == 6 * 2 * 48
    assert Path(result["checkpoint"]) == out and (out / "model.safetensors").exists()
    assert "loss" in done.stderr and "parameters" in done.stderr  # the progress
    assert "precision fp32: as asked for." in done.stderr


def test_eval_keeps_its_contract(place: Path, model: Path) -> None:
    text = place / "held out ü.txt"
    text.write_text("The fox went home. 🦊 Ça va?\n" * 20, encoding="utf-8")
    result = the_object(omnima("eval", model, "--data", text, "tinyworld:2KB", "--json"))
    check(result, EVAL)
    assert result["bytes"] > text.stat().st_size


def test_generate_guesses_ahead_and_writes_the_same(model: Path) -> None:
    asked = ["generate", model, "--prompt", "ab ab ab", "--max-new-tokens", "12", "--json"]
    plain = the_object(omnima(*asked))
    for kind in ("lookup", model):
        found = the_object(omnima(*asked, "--speculate", kind, "--speculative-tokens", "4"))
        check(found, {**GENERATE, "proposed_tokens": int, "accepted_tokens": int})
        assert found["text"] == plain["text"]


def test_generate_keeps_its_contract_and_a_seed_its_text(model: Path) -> None:
    asked = ["generate", model, "--prompt", "Ünce 🦊", "--max-new-tokens", "9", "--seed", "4"]
    first = the_object(omnima(*asked, "--json"))
    check(first, GENERATE)
    assert first["prompt_tokens"] == 1 + len("Ünce 🦊".encode()) and first["new_tokens"] <= 9
    shown = omnima(*asked, "--stream")
    assert shown.returncode == 0 and shown.stdout == "Ünce 🦊" + first["text"] + "\n"


def test_tokenize_keeps_its_contract(model: Path) -> None:
    result = the_object(omnima("tokenize", model, "--text", "é a", "--json"))
    assert set(result) == {"ids", "pieces"} and len(result["ids"]) == len(result["pieces"]) == 4
    assert all(isinstance(each, int) for each in result["ids"])
    piped = the_object(omnima("tokenize", model, "--text", "-", "--json", stdin="é a"))
    assert piped == result


def test_info_says_what_was_trained_and_why_so(model: Path) -> None:
    facts = the_object(omnima("info", model, "--json"))
    parts = {"parameters", "parts", "config", "tokenizer", "training", "provenance", "files"}
    parts |= {"foresight"}
    assert set(facts) == parts
    assert "train" in facts["provenance"]["sessions"][0]["command"]
    assert sum(facts["parts"].values()) == facts["parameters"]
    assert facts["training"]["precision"] == "fp32" and "asked" in facts["training"]["reason"]
    assert facts["training"]["steps"] == 6 and facts["files"]["model.safetensors"] > 0
    assert facts["tokenizer"]["kind"] == "byte" and facts["config"]["hidden_size"] == 32


def test_doctor_prints_one_object() -> None:
    facts = the_object(omnima("doctor", "--json"))
    assert set(facts) >= {"versions", "cpu", "memory", "gpu", "speed", "presets"}


def test_a_conversation_from_a_pipe_keeps_its_history(model: Path) -> None:
    from omnima import Model

    greedy = ["--temperature", "0", "--max-new-tokens", "6"]
    said = f"Once\n{'x' * 60}\nand\n/new\nOnce\n"  # the second line is beyond the context
    talk = omnima("generate", model, "--interactive", *greedy, stdin=said)
    assert talk.returncode == 0, talk.stderr
    loaded = Model.from_pretrained(model)
    first = loaded.generate("Once", temperature=0, max_new_tokens=6).text
    prompt = f"Once{first}\nand"
    second = loaded.generate(prompt, temperature=0, max_new_tokens=6).text
    assert talk.stdout == f"{first}\n{second}\n{first}\n"
    assert "> " in talk.stderr and "61" in talk.stderr


def test_a_file_of_prompts_is_one_batch_with_the_texts_of_each_alone(
    place: Path, model: Path
) -> None:
    from omnima import Model

    path = place / "prömpts.txt"
    path.write_text("Once\n\nThe fox and\n🦊\n", encoding="utf-8")
    asked = ["generate", model, "--prompts-file", path, "--max-new-tokens", "5", "--seed", "2"]
    result = the_object(omnima(*asked, "--temperature", "1", "--json"))
    assert list(result) == ["generations"]
    for written in result["generations"]:
        check(written, GENERATE)
    loaded = Model.from_pretrained(model)
    assert [each["text"] for each in result["generations"]] == [
        loaded.generate(each, temperature=1.0, max_new_tokens=5, seed=2).text
        for each in ("Once", "The fox and", "🦊")
    ]


def test_a_prompt_beyond_the_context_names_both_numbers(model: Path, refused: Says) -> None:
    said = refused("generate", model, "--prompt", "x" * 60, "--json")
    assert "61" in said and "48" in said


def test_a_wrong_field_names_file_line_and_the_fields_there_are(
    place: Path, tmp_path: Path, refused: Says
) -> None:
    path = place / "zwei Zeilen.jsonl"
    path.write_text('{"text": "a", "id": 1}\n{"body": "b", "id": 2}\n', encoding="utf-8")
    data = ["train", "--data", path, "--steps", "1", *QUICK, "--json"]
    said = refused(*data, "--out", tmp_path / "a")
    assert f"{path}, line 2" in said and "body" in said and "id" in said
    said = refused(*data, "--field", "txt", "--out", tmp_path / "b")
    assert f"{path}, line 1" in said and "'text'" in said
    path.write_text('{"text": "a"}\n{"text": \n', encoding="utf-8")
    assert f"{path}, line 2" in refused(*data, "--out", tmp_path / "c")


def test_bad_lines_are_counted_and_skipped_when_asked(
    place: Path, tmp_path: Path, leave: Leave
) -> None:
    path = place / "fast gut.jsonl"
    lines = [json.dumps({"text": f"Line {n} of a text, long enough. " * 4}) for n in range(40)]
    path.write_text("\n".join([*lines, "{broken", '{"no": 1}']), encoding="utf-8")
    data = ["train", "--data", path, "--on-error", "skip", "--steps", "1", *QUICK]
    code, out, err = leave([*data, "--resume", "--out", tmp_path / "run", "--json"])
    assert code == 0 and json.loads(out)["entropy_floor"] is None
    assert "Skipped 2 bad lines" in err
    assert "Nothing was saved yet" in err  # --resume on a fresh directory begins at the beginning


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"good text\nbad \xff byte\n", "line 2"),
        (None, "no file or directory"),
    ],
)
def test_data_that_cannot_be_read_is_named(
    place: Path,
    tmp_path: Path,
    refused: Says,
    content: bytes | None,
    message: str,
) -> None:
    path = place / "schlechte Daten.txt"
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content)
    data = ["--data", path, "--steps", "1", *QUICK, "--out", tmp_path / "run", "--json"]
    said = refused("train", *data)
    assert message in said and path.name in said


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["--set", "batch_sise=2"], ["batch_sise", '"batch_size"']),
        (["--set", "hiden_size=2"], ["hiden_size", '"hidden_size"']),
        (["--set", "lr"], ["lr", "key=value"]),
        (["--set", "lr=fast"], ["lr is 'fast'", "a number"]),
        (["--set", "hidden_size=31"], ["31"]),
        (["--tokenizer", "no such thing"], ["no such thing", "bpe, unigram, char, byte"]),
        (["--precision", "fp8"], ["fp8", "bf16"]),
        (["--on-error", "shrug"], ["shrug", "skip"]),
        (["--optimizer", "sgdd"], ["sgdd", "adamw"]),
        (["--preset", "2m"], ["2m", "1m"]),
        (["--steps", "0"], ["steps is 0", "at least 1"]),
        (["--set", "max_position_embeddings=16"], ["context is 48", "context is 16"]),
    ],
)
def test_wrong_values_are_named_with_the_right_ones(
    arguments: list[str],
    messages: list[str],
    tmp_path: Path,
    refused: Says,
) -> None:
    data = ["--data", "tinyworld:4KB", *QUICK, "--out", tmp_path / "run", "--json"]
    budget = [] if "--steps" in arguments else ["--steps", "1"]
    said = refused("train", *data, *budget, *arguments)
    for message in messages:
        assert message in said


def test_a_recipe_with_an_unknown_key_names_file_and_nearest(place: Path, refused: Says) -> None:
    path = place / "mein Räzept.yaml"
    path.write_text("data: tinyworld\npreset: 1m\nstepps: 4\n", encoding="utf-8")
    said = refused("train", "--config", path, "--json")
    assert '"stepps"' in said and '"steps"' in said and path.name in said


def test_directories_that_hold_something_else_are_refused(
    place: Path, model: Path, tmp_path: Path, refused: Says
) -> None:
    empty = tmp_path / "leer"
    empty.mkdir()
    assert "leer" in refused("tokenize", empty, "--text", "a", "--json")
    assert "leer" in refused("tokenize", empty / "none", "--text", "a", "--json")
    assert "leer" in refused("generate", empty, "--prompt", "a", "--json")
    run = ["train", "--data", "tinyworld:4KB", "--steps", "1", *QUICK, "--json"]
    said = refused(*run, "--tokenizer", empty, "--out", tmp_path / "a")
    assert "leer" in said and "tokenizer" in said
    said = refused(*run, "--out", model)
    assert "already holds a run" in said and "--overwrite" in said
    (empty / "precision.json").write_text("{")
    (empty / "config.json").write_bytes((model / "config.json").read_bytes())
    (empty / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes())
    assert "precision.json is damaged" in refused("info", empty, "--json")
    said = refused("generate", empty, "--prompt", "a")
    assert "no tokenizer" in said


def test_a_file_in_the_place_of_a_directory_is_refused(place: Path, refused: Says) -> None:
    path = place / "nur eine Datei"
    path.write_text("x")
    run = ["train", "--data", "tinyworld:4KB", "--steps", "1", *QUICK]
    assert "cannot be written" in refused(*run, "--out", path / "run", "--json")
    assert path.name in refused("info", path, "--json")


def test_stopped_while_the_text_is_prepared_it_goes_on_with_resume(
    tmp_path: Path, unmeasured: dict[str, str]
) -> None:
    out = tmp_path / "run"
    words = ["train", "--data", "tinyworld:12MB", *QUICK, "--steps", "9", "--samples", "0"]
    command = [sys.executable, "-m", "omnima", *words, "--out", str(out), "--json"]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, env=unmeasured, **pipes) as running:
        limit = time.monotonic() + 120
        while not (out / "data").exists() and time.monotonic() < limit:
            time.sleep(0.005)
        running.send_signal(signal.SIGINT)
        told, said = running.communicate(timeout=120)
    assert running.returncode == 130 and told == "" and "--resume" in said
    assert "Traceback" not in said
    result = the_object(omnima(*words, "--out", out, "--resume", "--json"))
    assert result["steps"] == 9


def test_people_get_lines(place: Path, model: Path, shown: Says) -> None:
    assert "bits_per_byte" in shown("eval", model, "--data", "tinyworld:2KB")
    info = shown("info", model)
    assert "parameters" in info and "precision fp32: as asked for." in info
    assert shown("tokenize", model, "--text", "ab").count("\t") == 2
    assert "presets here" in shown("doctor")
    asked = ["generate", model, "--max-new-tokens", "4", "--seed", "1"]
    alone = shown(*asked, "--prompt", "Once")
    assert alone.startswith("Once") and shown(*asked, "--prompt", "Once") == alone
    path = place / "two prompts.txt"
    path.write_text("Once\nThe\n", encoding="utf-8")
    batch = shown(*asked, "--prompts-file", path)
    assert batch.startswith(alone) and "\n\nThe" in batch


def test_people_get_the_samples_of_a_run(tmp_path: Path, shown: Says) -> None:
    run = ["train", "--data", "tinyworld:20KB", "--steps", "2", *QUICK, "--out", tmp_path / "run"]
    text = shown(*run, "--samples", "2", "--sample-prompt", "Once", "--sample-tokens", "5")
    assert "val_loss" in text and text.count("\nOnce") == 2
    samples = (tmp_path / "run" / "samples.txt").read_text(encoding="utf-8")
    assert samples.count("Once") == 2


def test_resume_is_verified_on_the_users_own_recipe(tmp_path: Path, shown: Says) -> None:
    run = ["train", "--data", "tinyworld:20KB", "--steps", "2", *QUICK, "--out", tmp_path / "run"]
    assert "Resume is exact" in shown(*run, "--verify-resume")


def test_a_run_from_its_own_recipe(model: Path, tmp_path: Path, shown: Says) -> None:
    again = ["--config", model / "config.yaml", "--steps", "1", "--out", tmp_path / "run"]
    result = json.loads(shown("train", *again, "--json"))
    assert result["steps"] == 1


def test_a_run_is_repeated_from_its_directory(model: Path, place: Path) -> None:
    again = place / "noch einmal"
    told = the_object(omnima("train", "--repeat", model, "--out", again, "--json"))
    assert told["identical"] is True and told["steps"] == 6 and told["same_weights"] is True
    done = omnima("train", "--repeat", model, "--out", again, "--resume")
    assert done.returncode == 1 and "leave out --resume" in done.stderr
    records = again / "metrics.jsonl"
    records.write_text(records.read_text().replace('"step": 2, "loss": ', '"step": 2, "loss": 1'))
    done = omnima("train", "--repeat", again, "--out", place / "drittens")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "step 2 is the first that differs" in " ".join(done.stdout.split())
