"""The exceptions: one tree, with the built-in ones that callers already catch."""

from __future__ import annotations

import pickle

import pytest

from rerank_core import errors

PARENTS: dict[str, set[type]] = {
    "RerankError": {Exception},
    "ConfigurationError": {errors.RerankError, ValueError},
    "MissingExtraError": {errors.RerankError, ImportError},
    "ScorerError": {errors.RerankError},
    "AuthenticationError": {errors.ScorerError},
    "MissingKeyError": {errors.AuthenticationError, ValueError},
    "RateLimitError": {errors.ScorerError},
    "RequestTooLargeError": {errors.ScorerError},
    "ScorerUnavailableError": {errors.ScorerError},
    "ScorerTimeoutError": {errors.ScorerError, TimeoutError},
    "InvalidResponseError": {errors.ScorerError},
}


def test_the_table_above_is_complete() -> None:
    """A new exception has to find its place in the tree."""
    assert sorted(PARENTS) == [name for name in errors.__all__ if name[0].isupper()]


@pytest.mark.parametrize("name", sorted(PARENTS))
def test_an_exception_stands_where_the_tree_says(name: str) -> None:
    """Its bases are exactly those, and the drawing in the module's docstring shows it."""
    assert set(getattr(errors, name).__bases__) == PARENTS[name]
    assert f"{name} " in errors.__doc__ or f"{name}\n" in errors.__doc__


@pytest.mark.parametrize("name", sorted(PARENTS))
def test_an_exception_survives_pickling(name: str) -> None:
    """A worker process can report it."""
    error = getattr(errors, name)("what, and how to mend it")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == "what, and how to mend it"


def test_a_missing_extra_keeps_the_packages_name_when_pickled() -> None:
    """As ImportError does."""
    copy = pickle.loads(pickle.dumps(errors.MissingExtraError("install it", name="numpy")))
    assert copy.name == "numpy"


@pytest.mark.parametrize("name", sorted(PARENTS))
def test_an_error_keeps_its_scorer_when_pickled(name: str) -> None:
    """The scorer's name begins the message, once, in this process and in another one."""
    with pytest.raises(errors.RerankError) as caught, errors.name_scorer("outer"), errors.name_scorer("inner"):
        raise getattr(errors, name)("did not work")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.scorer, str(copy), copy.args) == ("inner", "inner: did not work", ("did not work",))


def test_an_error_from_outside_the_tree_gets_no_name() -> None:
    """It is raised as it is."""
    with pytest.raises(OSError, match="^no space left$"), errors.name_scorer("fake"):
        raise OSError("no space left")
