"""The packages do without what Windows does not have: forks, Unix modules, signals, UTF-8 as the default."""

from __future__ import annotations

from pathlib import Path

from support.models import build_checkpoint
from support.scripts import run_script

SCRIPT = '''
import asyncio, importlib, json, os, pkgutil, signal, sys, tempfile, types, warnings
from pathlib import Path

PACKAGES = ("rerank_core", "rerank_tools", "langchain_rerankers", "llamaindex_rerankers")
QUERY, TEXTS = "find a memory leak", ["Paris in spring", "A caf\\u00e9 \\u2013 memory leaks", "Lists"]

def use(folder, checkpoint):
    from langchain_core.documents import Document
    from llama_index.core.schema import NodeWithScore, TextNode
    from langchain_rerankers import RerankCompressor
    from llamaindex_rerankers import RerankPostprocessor
    from rerank_core import Reranker, load_scorer
    from rerank_core.policies import Cached, Fallback
    from rerank_core.policies.caches import DiskCache
    from rerank_core.vectors import VectorFile
    from rerank_tools import cli
    from rerank_tools.batch import BatchOptions, rerank_file
    from rerank_tools.corpus import CorpusIndex
    from rerank_tools.evaluation import Dataset, evaluate
    from rerank_tools.serve import create_app

    assert Reranker("embedded").rerank(QUERY, TEXTS)[0].index == 1
    assert asyncio.run(Reranker(Fallback(["embedded"])).arerank(QUERY, TEXTS))[0].index == 1
    with Reranker(Cached("embedded", DiskCache(folder / "scores.db"), cache_timeout=30.0)) as reranker:
        reranker.rerank(QUERY, TEXTS)
    with Reranker(load_scorer("embedded", vectors=folder / "rerank.vectors")) as reranker:
        assert reranker.precompute(TEXTS).documents == 3
        assert reranker.rerank(QUERY, TEXTS)[0].index == 1
    assert VectorFile(folder / "rerank.vectors").stats().documents == 3
    os.environ["RERANK_BRIDGE_CACHE"] = str(folder / "cache")
    for precision in ("fp32", "int8"):
        scorer = load_scorer(f"onnx:{checkpoint}", precision=precision, runtime="onnxruntime")
        assert Reranker(scorer).rerank(QUERY, TEXTS)
    assert RerankCompressor(top_n=1).compress_documents([Document(text) for text in TEXTS], QUERY)
    nodes = [NodeWithScore(node=TextNode(text=text)) for text in TEXTS]
    assert RerankPostprocessor(top_n=1).postprocess_nodes(nodes, query_str=QUERY)
    rows = folder / "rows.jsonl"
    rows.write_text(json.dumps({"query": QUERY, "documents": TEXTS}, ensure_ascii=False), encoding="utf-8")
    for _ in range(2):
        assert rerank_file(rows, folder / "results", BatchOptions(model="embedded")).finished == 1
    corpus = folder / "corpus"
    corpus.mkdir()
    (corpus / "page.md").write_text("# Caf\\u00e9\\n\\n" + "\\n\\n".join(TEXTS), encoding="utf-8")
    assert CorpusIndex.open(corpus).search(QUERY, candidates=5)
    data = Dataset(dict(enumerate_texts()), {"q": QUERY}, {"q": {"1": 1}})
    assert evaluate(["embedded"], data, save_to=folder / "kept").systems
    listed = folder / "documents.jsonl"
    listed.write_text("".join(json.dumps({"text": text}) + "\\n" for text in TEXTS), encoding="utf-8")
    assert cli.main(["rerank", "-q", QUERY, "-d", str(listed), "-o", "jsonl"]) == 0
    create_app(Reranker("embedded"))

def enumerate_texts():
    return ((str(number), text) for number, text in enumerate(TEXTS))

def imitate(module, missing, **changed):
    """Return a copy of a module as it is on Windows."""
    copy = types.ModuleType(module.__name__, module.__doc__)
    copy.__dict__.update({name: each for name, each in vars(module).items() if name not in missing})
    copy.__dict__.update(changed)
    return copy

UNIX_MODULES = ("crypt", "fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty")
OF_OS = {
    "O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_SYNC", "WNOHANG", "chown", "fchmod", "fchown",
    "fdatasync", "fork", "forkpty", "getegid", "geteuid", "getgid", "getloadavg", "getpgid", "getuid", "killpg",
    "mkfifo", "nice", "posix_fadvise", "pread", "pwrite", "register_at_fork", "sched_getaffinity",
    "sched_setaffinity", "sendfile", "setsid", "statvfs", "sysconf", "uname", "wait3", "wait4",
}
SIGNALS = {"SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM", "SIG_DFL", "SIG_IGN"}
OF_SIGNAL = {name for name in dir(signal) if name.startswith("SIG")} - SIGNALS
OF_SIGNAL |= {"alarm", "pause", "pthread_kill", "pthread_sigmask", "setitimer", "sigwait"}
BY_US = "rerank_|langchain_rerankers|llamaindex_rerankers"

checkpoint = sys.argv[1]
with tempfile.TemporaryDirectory() as folder:
    use(Path(folder), checkpoint)  # so that the libraries are loaded, and keep the real modules
for name in [name for name in sys.modules if name.partition(".")[0] in PACKAGES]:
    del sys.modules[name]
sys.modules["os"] = imitate(os, OF_OS, name="nt", linesep="\\r\\n")
sys.modules["signal"] = imitate(signal, OF_SIGNAL)
sys.modules |= dict.fromkeys(UNIX_MODULES)  # importing them fails
warnings.filterwarnings("error", category=EncodingWarning, module=BY_US)
for package in map(importlib.import_module, PACKAGES):
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(found.name)
with tempfile.TemporaryDirectory() as folder:
    use(Path(folder), checkpoint)
assert sys.modules["rerank_core._support.files"].os.name == "nt"
print("done")
'''


def test_the_main_paths_work_as_on_windows(tmp_path: Path) -> None:
    """Modules are imported, and models, caches, files, batches and commands used, without what is missing."""
    checkpoint = build_checkpoint(tmp_path / "model")
    environment = {"PYTHONWARNDEFAULTENCODING": "1", "HF_HUB_OFFLINE": "1"}
    assert run_script(SCRIPT, str(checkpoint), timeout=110, env=environment).endswith("done\n")
