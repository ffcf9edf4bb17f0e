"""Files of conversations: every format, every way to break it, each refused with file and line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from omnima.data import read_examples
from omnima.data.conversations import (
    FORMATS,
    Completion,
    Conversation,
    Judged,
    Pair,
    PlainText,
)
from omnima.errors import ConfigError, DataError

REAL = Path(__file__).resolve().parents[3].parent / "shared" / "data"

ASK = {"role": "user", "content": "Hi?"}
SAY = {"role": "assistant", "content": "Ho."}
RECORDS: dict[str, dict[str, Any]] = {
    "messages": {"messages": [ASK, SAY]},
    "sharegpt": {
        "conversations": [{"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "Ho."}]
    },
    "instruction": {"instruction": "Hi?", "input": "", "output": "Ho."},
    "tasks": {"instruction": "Hi?", "instances": [{"input": "", "output": "Ho."}]},
    "question": {"question": "Hi?", "answer": "Ho."},
    "completion": {"prompt": "Hi?", "completion": "Ho."},
    "judged": {"prompt": "Hi?", "completion": "Ho.", "label": True},
    "preference": {"prompt": "Hi?", "chosen": "Ho.", "rejected": "Hu."},
    "text": {"text": "Hi? Ho."},
}


def lines(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in records), encoding="utf-8")
    return path


def messages_of(example: Any) -> list[tuple[str, str]]:
    return [(each["role"], each["content"]) for each in example.messages]


def test_there_is_a_record_of_every_format() -> None:
    assert set(RECORDS) == {each.name for each in FORMATS}


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".jsonl.gz", ".json.gz"])
def test_formats_are_told_by_their_fields(name: str, suffix: str, tmp_path: Path) -> None:
    record = RECORDS[name]
    text = json.dumps([record, record]) if ".json" == suffix[:5] and "l" not in suffix else ""
    text = text or (json.dumps(record) + "\n") * 2
    path = tmp_path / f"data{suffix}"
    opened = gzip.open if suffix.endswith(".gz") else open
    with opened(path, "wt", encoding="utf-8") as file:
        file.write("\ufeff" + text)
    reading = read_examples(path)
    example, again = reading
    assert reading.formats == {path: (name, 2)} and type(again) is type(example)
    assert reading.sentences() == [f"data{suffix}: 2 records, format {name}."]
    if isinstance(example, Conversation):
        assert messages_of(example) == [("user", "Hi?"), ("assistant", "Ho.")]
    elif isinstance(example, Completion):
        assert (example.prompt, example.completion) == ("Hi?", "Ho.")
    elif isinstance(example, Pair):
        assert isinstance(example.chosen, Completion) and isinstance(example.rejected, Completion)
        assert (example.chosen.completion, example.rejected.completion) == ("Ho.", "Hu.")
    elif isinstance(example, Judged):
        assert isinstance(example.answer, Completion) and example.good
        assert (example.answer.prompt, example.answer.completion) == ("Hi?", "Ho.")
    else:
        assert isinstance(example, PlainText) and example.text == "Hi? Ho."


def test_what_formats_may_say_besides(tmp_path: Path) -> None:
    system = {"role": "system", "content": "Be brief."}
    tool = {"type": "function", "function": {"name": "f"}}
    call = {"role": "assistant", "content": None, "tool_calls": [tool]}
    path = lines(
        tmp_path / "a.jsonl",
        {"messages": [system, ASK, call, {"role": "tool", "content": "1"}, SAY], "tools": [tool]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi?"}]}, SAY]},
    )
    with_tools, in_parts = read_examples(path)
    assert with_tools.tools == (tool,) and with_tools.messages[2]["tool_calls"] == [tool]
    assert messages_of(in_parts) == [("user", "Hi?"), ("assistant", "Ho.")]

    path = lines(
        tmp_path / "b.jsonl",
        {"instruction": "Add.", "context": "1 1", "response": "2", "system": "Be brief."},
    )
    (example,) = read_examples(path)
    assert messages_of(example) == [
        ("system", "Be brief."),
        ("user", "Add.\n\n1 1"),
        ("assistant", "2"),
    ]
    path = lines(tmp_path / "c.jsonl", {**RECORDS["sharegpt"], "system": "Be brief."})
    assert messages_of(*read_examples(path))[0] == ("system", "Be brief.")
    path = lines(tmp_path / "d.jsonl", {"prompt": [ASK], "completion": [SAY]})
    (example,) = read_examples(path)
    assert example.last_turn_only and messages_of(example)[1] == ("assistant", "Ho.")
    other = {**SAY, "content": "Hu."}
    path = lines(tmp_path / "e.jsonl", {"chosen": [ASK, SAY], "rejected": [ASK, other]})
    (pair,) = read_examples(path)
    assert pair.chosen.messages == (ASK, SAY) and pair.rejected.messages == (ASK, other)
    path = lines(tmp_path / "f.jsonl", {"instruction": "Hi?", "chosen": "Ho.", "rejected": "Hu."})
    (pair,) = read_examples(path)
    assert messages_of(pair.rejected) == [("user", "Hi?"), ("assistant", "Hu.")]


def test_text_files_are_documents(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("One.\n<|endoftext|>\nTwo.\n")
    reading = read_examples(path)
    assert [each.text for each in reading] == ["One.\n", "Two.\n"]
    assert reading.formats == {path: ("text", 2)}


BROKEN = {
    "no JSON": ('{"messages": [', r"line 2: not JSON \(.* at column"),
    "no object": ("[1]", "line 2: a JSON list where an object is expected"),
    "a key twice": ('{"text": "a", "text": "b"}', "line 2: .*'text' stands twice"),
    "not a number": ('{"text": NaN}', "line 2: .*NaN is no JSON number"),
    "no format": ({"mesages": []}, "line 2: no known format.*Did you mean 'messages'.*sharegpt"),
    "no fields": ({}, "line 2: no known format has the fields none"),
    "another format": (RECORDS["text"], "line 2: the format is text, but line 1 began with"),
    "no list": ({"messages": "Hi"}, "line 2: field 'messages' is a str"),
    "no messages": ({"messages": []}, "line 2: field 'messages' is an empty list"),
    "no message": ({"messages": ["Hi"]}, "line 2: message 1 is a str"),
    "no role": ({"messages": [{"content": "Hi"}]}, "line 2: message 1 has no role"),
    "unknown role": (
        {"messages": [{"role": "asistant", "content": "a"}]},
        "line 2: message 1 has the role 'asistant'; expected .*did you mean 'assistant'",
    ),
    "no content": ({"messages": [{"role": "user"}]}, "line 2: message 1 has no content"),
    "empty": (
        {"messages": [ASK, {**SAY, "content": " \n"}]},
        "line 2: the content of message 2 is empty",
    ),
    "a number": (
        {"messages": [{**ASK, "content": 5}]},
        "line 2: the content of message 1 is a int, not text",
    ),
    "null": (
        {"messages": [ASK, {**SAY, "content": None}]},
        "line 2: the content of message 2 is missing",
    ),
    "an image": (
        {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
        "line 2: message 1 has a part of type 'image'",
    ),
    "half a pair": (
        {"messages": [ASK, {**SAY, "content": "\ud800"}]},
        "line 2: the content of message 2: invalid Unicode at position 0",
    ),
    "no answer": ({"messages": [ASK]}, "line 2: no message is the assistant's"),
    "nothing asked": ({"messages": [SAY, ASK]}, "line 2: the first message is the assistant's"),
    "wrong tools": ({"messages": [ASK, SAY], "tools": "f"}, "line 2: field 'tools' must be a list"),
}


def expect(path: Path, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        list(read_examples(path))
    assert str(path) in str(error.value)


@pytest.mark.parametrize("name", BROKEN)
def test_broken_lines_are_refused_with_their_place(name: str, tmp_path: Path) -> None:
    record, message = BROKEN[name]
    broken = record if isinstance(record, str) else json.dumps(record)
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(RECORDS["messages"]) + "\n" + broken + "\n")
    expect(path, message)


BROKEN_RECORDS = {
    "sharegpt, from": (
        {"conversations": [{"from": "cat", "value": "Hi"}]},
        "turn 1 is from 'cat'; expected one of system, human",
    ),
    "sharegpt, value": ({"conversations": [{"from": "human"}]}, "turn 1 has no value"),
    "sharegpt, list": ({"conversations": {}}, "field 'conversations' is a dict"),
    "instruction, output": ({"instruction": "a"}, "expected a field output or response"),
    "instruction, empty": ({"instruction": "a", "output": ""}, "field 'output' is empty"),
    "instruction, input": (
        {"instruction": "a", "input": ["b"], "output": "c"},
        "the input of the instruction is a list",
    ),
    "instruction, none": ({"instruction": None, "output": "c"}, "field 'instruction' is missing"),
    "tasks, none": ({"instruction": "a", "instances": []}, "'instances' must be a list"),
    "tasks, object": ({"instruction": "a", "instances": ["b"]}, "instance 1 is a str"),
    "tasks, output": (
        {"instruction": "a", "instances": [{"input": "b"}]},
        "the output of instance 1 is missing",
    ),
    "completion, empty": ({"prompt": "a", "completion": ""}, "field 'completion' is empty"),
    "completion, mixed": ({"prompt": "a", "completion": [SAY]}, "two texts or two lists"),
    "completion, role": ({"prompt": [ASK], "completion": [ASK]}, "one message, the assistant's"),
    "pair, prompt": ({"chosen": "a", "rejected": "b"}, "there is no prompt"),
    "pair, empty": ({"prompt": "a", "chosen": "b", "rejected": ""}, "field 'rejected' is empty"),
    "pair, other prompts": (
        {"chosen": [ASK, SAY], "rejected": [{**ASK, "content": "What?"}, SAY]},
        "answer different things",
    ),
    "pair, last": ({"chosen": [ASK, SAY, ASK], "rejected": [ASK, SAY]}, "the last message must be"),
    "text, list": ({"text": ["a"]}, "field 'text' is a list, not text"),
}


@pytest.mark.parametrize("name", BROKEN_RECORDS)
def test_broken_fields_are_refused_with_their_place(name: str, tmp_path: Path) -> None:
    record, message = BROKEN_RECORDS[name]
    expect(lines(tmp_path / "data.jsonl", record), f"line 1: .*{message}")


BROKEN_LISTS = {
    "not a list": ('\n{"text": "a"}', r"line 2: a list of objects is expected"),
    "no end": ('[\n{"text": "a"}\n', "line 3: not JSON: the list has no end"),
    "no comma": ('[\n{"text": "a"}\n{"text": "b"}]', "line 3: not JSON .a comma is missing"),
    "comma": ('[\n{"text": "a"},\n]', "line 3: not JSON"),
    "behind": ('[{"text": "a"}]\n{}', "line 2: not JSON: more follows"),
    "inside": ('[{"text": "a"},\n{"text": }]', "line 2: not JSON"),
    "a word": ('[{"text": "a"},\n\n"b"]', "line 3: a JSON str where an object"),
    "twice": ('[\n{"text": "a", "text": "b"}]', "line 2: .*'text' stands twice"),
    "a field": ('[{"text": "a"},\n\n {"text": ""}]', "line 3: field 'text' is empty"),
    "empty": ("[]", "the file is empty"),
}


@pytest.mark.parametrize("name", BROKEN_LISTS)
def test_broken_lists_are_refused_with_their_place(name: str, tmp_path: Path) -> None:
    text, message = BROKEN_LISTS[name]
    path = tmp_path / "data.json"
    path.write_text(text)
    expect(path, message)


def test_bytes_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "a"}\n{"text": "caf\xe9"}\n')
    expect(path, "line 2: byte 0xe9 at column 14 is not UTF-8")
    path = tmp_path / "a.json"
    path.write_bytes(b'[{"text": "a"},\n{"text": "caf\xe9"}]\n')
    expect(path, "line 2: byte 0xe9 at column 14 is not UTF-8")


def test_empty_and_damaged_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n \n")
    expect(tmp_path / "a.jsonl", "the file is empty")
    (tmp_path / "a.json").write_text("")
    expect(tmp_path / "a.json", "the file is empty")
    whole = gzip.compress(b'{"text": "a"}\n' * 1000)
    for name in ("b.jsonl.gz", "b.json.gz"):
        (tmp_path / name).write_bytes(whole[:40])
        expect(tmp_path / name, "not a whole gzip file")


def test_files_are_found_and_counted_once(tmp_path: Path) -> None:
    first = lines(tmp_path / "a.jsonl", RECORDS["text"])
    second = lines(tmp_path / "b.jsonl", RECORDS["text"], RECORDS["text"])
    (tmp_path / "notes.pdf").write_text("no data")
    assert read_examples(tmp_path).paths == [first, second]
    assert read_examples([str(tmp_path / "*.jsonl")]).paths == [first, second]
    assert len(list(read_examples([first, second]))) == 3
    with pytest.raises(DataError, match="is named twice"):
        read_examples([first, first])
    with pytest.raises(DataError, match="there is no file"):
        read_examples(tmp_path / "c.jsonl")
    with pytest.raises(DataError, match="no data"):
        read_examples([])
    with pytest.raises(ConfigError, match="on_error is 'ignore'"):
        read_examples(first, on_error="ignore")  # type: ignore[arg-type]


def test_broken_records_are_left_out_and_counted_when_asked(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", RECORDS["text"], {"text": ""}, {}, RECORDS["messages"])
    reading = read_examples(path, on_error="skip")
    assert len(list(reading)) == 1 and reading.skipped == 3
    assert reading.sentences()[1].startswith("3 broken records were left out. The first: ")
    assert "line 2: field 'text' is empty." in reading.sentences()[1]
    path = lines(tmp_path / "b.jsonl", {"text": ""})
    with pytest.raises(DataError, match="every record is broken. The first: .*line 1"):
        list(read_examples(path, on_error="skip"))


@pytest.mark.parametrize(
    ("name", "form", "count"),
    [
        ("instruct/dolly_151.jsonl", "instruction", 151),
        ("instruct/dolly_6400_reexport.jsonl.gz", "instruction", 6400),
        ("instruct/llms_from_scratch.json", "instruction", 988),
        ("instruct/self_instruct_seed_tasks.jsonl", "tasks", 175),
        ("gsm8k/train.jsonl.gz", "question", 7473),
        ("preference/llms_from_scratch_preference.json", "preference", 988),
    ],
)
def test_real_files(name: str, form: str, count: int) -> None:
    path = REAL / name
    if not path.exists():
        pytest.skip("the shared data is not here")
    reading = read_examples(path)
    assert len(list(reading)) >= count and reading.formats == {path: (form, count)}
