"""Tokens are counted by a tokenizer where there is one, and an estimate says that it is one."""

import json
from typing import Any

import pytest

from hmas_agents.token_count import LocalTokenizer, TokenCountError, token_counter

MESSAGES = [{"role": "system", "content": "one two"}, {"role": "user", "content": "two two"}]
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }} {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}go{% endif %}"
)


@pytest.fixture
def folder(tmp_path):
    """A model whose tokens are words."""
    words = ("?", "one", "two", "system", "user", "go")
    tokenizer: dict[str, Any] = {
        "version": "1.0", "added_tokens": [], "truncation": None, "padding": None,
        "normalizer": None, "post_processor": None, "decoder": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {
            "type": "WordLevel", "unk_token": "?", "vocab": {w: i for i, w in enumerate(words)},
        },
    }  # fmt: skip
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    (tmp_path / "chat_template.jinja").write_text(TEMPLATE)
    return tmp_path


def test_a_tokenizer_on_disk_counts_with_its_chat_template(folder):
    counter = token_counter(folder=folder)
    assert isinstance(counter, LocalTokenizer)
    assert counter.count_text("one two one") == 3
    assert counter.count_messages(MESSAGES) == 4 + 2 + 1
    assert folder.name in counter.source


def test_without_one_tokens_are_estimated_and_it_says_so(tmp_path):
    counter = token_counter(folder=tmp_path)
    assert counter.count_text("12345") == 2
    assert counter.count_messages(MESSAGES) == 4
    assert "estimate" in counter.source


def test_a_server_that_is_not_there_is_an_error_that_says_what_to_do():
    with pytest.raises(TokenCountError, match="leave the option out"):
        token_counter("http://127.0.0.1:9").count_text("one")
