"""Questions about Python's standard library, and the parts of it that answer them: small, hand-made test data."""

from __future__ import annotations

from stdlib_corpus import Passage, passages

from rerank_tools.evaluation import Dataset

ANSWERS = {
    "Run a command and capture what it prints, but give up after ten seconds": ("subprocess.run", "subprocess"),
    "Compare two versions of a text and show the differences": ("difflib",),
    "Which lines of my program allocate the most memory?": ("tracemalloc",),
    "Sort a few largest items out of a long list": ("heapq",),
    "Remember the results of a function, not to compute them twice": (
        "functools.lru_cache",
        "functools.cache",
    ),
    "Read a file of comma separated values": ("csv",),
    "Wait for several coroutines to finish": ("asyncio.tasks.gather", "asyncio.tasks.wait"),
    "Delete a folder with everything in it": ("shutil.rmtree",),
    "Insert into a list so that it stays sorted": ("bisect", "_bisect"),
    "Break a paragraph into lines of a given width": ("textwrap",),
    "Count how often each item occurs": ("collections.Counter",),
    "Write a temporary file that disappears by itself": ("tempfile",),
    "Secret tokens that nobody can guess": ("secrets",),
    "Find a word that is spelled almost like this one": ("difflib.get_close_matches",),
    "Where is the time spent in my program?": ("cProfile", "profile", "pstats", "timeit"),
    "Split a shell command into its arguments": ("shlex",),
}


MODULES = {title.partition(".")[0] for titles in ANSWERS.values() for title in titles} | {
    "argparse",
    "calendar",
    "concurrent",
    "contextlib",
    "datetime",
    "gzip",
    "itertools",
    "json",
    "locale",
    "logging",
    "pathlib",
    "pickle",
    "queue",
    "random",
    "re",
    "shelve",
    "socket",
    "statistics",
    "string",
    "threading",
    "tokenize",
    "traceback",
    "zipfile",
}
"""Where the answers are, and as many modules where they are not."""


def corpus() -> list[Passage]:
    """Return the documentation of some forty modules."""
    return passages(MODULES)


def dataset(found: list[Passage]) -> Dataset:
    """Return the questions with their answers among some passages, for ``evaluate``."""
    documents = {str(number): f"{passage.title}\n{passage.text}" for number, passage in enumerate(found)}
    queries = {str(number): question for number, question in enumerate(ANSWERS)}
    qrels = {
        query: {str(number): 1 for number, passage in enumerate(found) if _answers(passage, ANSWERS[question])}
        for query, question in queries.items()
    }
    return Dataset(documents, queries, qrels, name="standard library")


def _answers(passage: Passage, wanted: tuple[str, ...]) -> bool:
    return any(passage.title == title or passage.title.startswith(f"{title}.") for title in wanted)
