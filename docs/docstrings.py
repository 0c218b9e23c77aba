"""Docstrings as Markdown: examples become code blocks, and roles of Sphinx plain code."""

from __future__ import annotations

import re

import griffe

ROLE = re.compile(r":(?:func|class|meth|mod|data|attr|exc|obj):`~?([^`]+)`")
EXAMPLE = re.compile(r"(?:^|(?<=\n\n))>>> .*?(?=\n\n|\Z)", re.S)
LITERAL = re.compile(r"^::$|::$", re.M)


class MarkdownDocstrings(griffe.Extension):
    """Rewrite each docstring before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **options: object) -> None:
        """Rewrite the docstring of a module, a class or a function."""
        if obj.docstring is not None:
            text = ROLE.sub(r"`\1`", obj.docstring.value)
            text = EXAMPLE.sub(lambda match: f"```pycon\n{match[0]}\n```", text)
            obj.docstring.value = LITERAL.sub(lambda match: "" if match[0] == "::" else ":", text)
