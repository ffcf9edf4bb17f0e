"""Conversations, instructions and answers: files read, supervised spans, packed rows, a view."""

from __future__ import annotations

from omnima.data.conversations.dataset import ConversationData, open_conversations
from omnima.data.conversations.encoding import Encoder, Sample
from omnima.data.conversations.examples import Completion, Conversation, Judged, Pair, PlainText
from omnima.data.conversations.formats import FORMATS, format_of
from omnima.data.conversations.reading import Reading, read_examples
from omnima.data.conversations.view import SupervisionView, inspect

__all__ = [
    "FORMATS",
    "Completion",
    "Conversation",
    "ConversationData",
    "Encoder",
    "Judged",
    "Pair",
    "PlainText",
    "Reading",
    "Sample",
    "SupervisionView",
    "format_of",
    "inspect",
    "open_conversations",
    "read_examples",
]
