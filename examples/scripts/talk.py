"""Ask a model something: python talk.py MODEL [--adapter DIR] QUESTION …"""

from __future__ import annotations

import argparse

import omnima

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model")
parser.add_argument("questions", nargs="+")
parser.add_argument("--adapter")
asked = parser.parse_args()

# With an adapter the weights stay as their file stores them, too.
model = omnima.Model.from_pretrained(asked.model, dtype="auto")
if asked.adapter:
    model.load_adapter(asked.adapter)
chat = omnima.ChatSession(model, options={"max_new_tokens": 48, "temperature": 0.0})
for question in asked.questions:
    print(f"> {question}")
    answer = chat.say(question, stream=lambda piece: print(piece, end="", flush=True))
    print(f"\n  ({answer.new_tokens} tokens, {answer.finish_reason})")
