"""What an installed wheel must do, in an environment without the checkout; the argument is the wheel."""

import sys
import zipfile
from importlib.metadata import version
from pathlib import Path


def check(condition: bool, what: str) -> None:
    """Exit with a message unless the condition holds."""
    if not condition:
        sys.exit(f"wheel smoke test failed: {what}")


names = zipfile.ZipFile(sys.argv[1]).namelist()
roots = {name.split("/")[0] for name in names if ".dist-info/" not in name}
check(
    roots == {"langchain_rerankers", "llamaindex_rerankers", "rerank_core", "rerank_tools"},
    f"packages are {sorted(roots)}",
)
for package in sorted(roots):
    check(f"{package}/py.typed" in names, f"{package} has no py.typed")
for data in ("vocab.txt", "idf.npy"):
    check(f"rerank_core/local/embedded/{data}" in names, f"{data} is missing")
check(any(name.endswith(".dist-info/licenses/LICENSE") for name in names), "the licence is missing")
check(version("rerank-bridge") == Path(sys.argv[1]).name.split("-")[1], "the version differs")

import rerank_core  # noqa: E402

check("site-packages" in Path(rerank_core.__file__).parts, f"rerank_core comes from {rerank_core.__file__}")
check("torch" not in sys.modules and "numpy" not in sys.modules, "the core imports more than it needs")

from langchain_core.documents import Document  # noqa: E402
from llama_index.core.schema import NodeWithScore, TextNode  # noqa: E402

from langchain_rerankers import RerankCompressor  # noqa: E402
from llamaindex_rerankers import RerankPostprocessor  # noqa: E402

texts = ["The weather in Paris is lovely this time of year.", "Memory leak in Python applications"]
query = "How to fix Python memory leak"
documents = RerankCompressor(top_n=1).compress_documents([Document(text) for text in texts], query)
nodes = RerankPostprocessor(top_n=1).postprocess_nodes(
    [NodeWithScore(node=TextNode(text=text)) for text in texts], query_str=query
)
check([document.page_content for document in documents] == texts[1:], f"LangChain ranked {documents}")
check([node.text for node in nodes] == texts[1:], f"LlamaIndex ranked {nodes}")
try:
    rerank_core.load_scorer("cross-encoder:anything")
except rerank_core.MissingExtraError as exc:
    check("rerank-bridge[local]" in str(exc), f"the extra is not named: {exc}")
else:
    check(False, "sentence-transformers is installed, so this environment is not empty")
print(f"wheel smoke test passed: {Path(sys.argv[1]).name}")
