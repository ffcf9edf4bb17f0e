"""The chat template of models that have none: plain headings, and the tokens that every one has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omnima.errors import ConfigError

if TYPE_CHECKING:
    from omnima.tokenizers.tokenizer import Tokenizer

PLAIN = """\
{{ bos_token }}{% for message in messages %}\
{{ '### ' + message.role | capitalize + ':\\n' + message.content }}\
{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}\
{% endfor %}\
{% if add_generation_prompt %}{{ '### Assistant:\\n' }}{% endif %}"""


def ensure_template(tokenizer: Tokenizer) -> str | None:
    """Give a tokenizer without a chat template the plain one; return a sentence that says so.

    Raises
    ------
    ConfigError
        The tokenizer has no end token, so no template could end a turn.

    Examples
    --------
    >>> from omnima import Tokenizer
    >>> tokenizer = Tokenizer.train(["to be"], "byte")
    >>> ensure_template(tokenizer)
    'The model has no chat template: the plain one is taken, with headings such as ### User:.'
    >>> tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    '<s>### User:\\nHi\\n'
    """
    if tokenizer.chat_template is not None:
        return None
    if tokenizer.eos_id is None:
        raise ConfigError(
            "the tokenizer has neither a chat template nor an end token, so no turn of a "
            "conversation could end: set tokenizer.chat_template"
        )
    tokenizer.chat_template = PLAIN
    return (
        "The model has no chat template: the plain one is taken, with headings such as ### User:."
    )
