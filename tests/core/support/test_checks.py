"""Checks of options."""

from __future__ import annotations

import re

import pytest

from rerank_core import ConfigurationError
from rerank_core._support.checks import check_text


@pytest.mark.parametrize("value", ["", " \n", 3, None])
def test_a_text_that_is_blank_or_none_is_refused_by_name_and_value(value: object) -> None:
    """The message says which option it is and what was given."""
    with pytest.raises(ConfigurationError, match=re.escape(f"instruction is {value!r}: give a text")):
        check_text("instruction", value)


def test_a_text_is_returned_as_it_is() -> None:
    """Blanks around it stay."""
    assert check_text("instruction", " prefer news ") == " prefer news "
