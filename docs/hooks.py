"""What the site makes at build time: the API reference, the notebooks' pages, the changelog, llms.txt."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import figures
import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Navigation
from mkdocs.structure.pages import Page
from nbconvert import MarkdownExporter

from rerank_core.pricing import PRICES_AS_OF
from rerank_tools.known_models import known_models

ROOT = Path(__file__).parents[1]
SOURCES = {
    "rerank_core": ROOT / "shared",
    "rerank_tools": ROOT / "shared",
    "langchain_rerankers": ROOT,
    "llamaindex_rerankers": ROOT,
}
PAGES: dict[str, Page] = {}  # of this build, in the order of the navigation, without those made of other files


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill in the parts of the navigation that follow from folders."""
    parts = {
        "notebooks/": [f"notebooks/{path.stem}.md" for path in notebooks()],
        "reference/": ["reference/index.md", *(f"reference/{page}.md" for page in reference_pages())],
    }
    config.nav = [
        {title: parts.get(entry, entry) if isinstance(entry, str) else entry}
        for each in config.nav or []
        for title, entry in each.items()
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made of other files."""
    pages = {"changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")}
    pages["reference/index.md"] = reference_index()
    for page, modules in reference_pages().items():
        pages[f"reference/{page}.md"] = "\n\n".join([f"# {page}", *reference_page(modules)]) + "\n"
    for path in notebooks():
        pages[f"notebooks/{path.stem}.md"], images = notebook_page(path)
        for name, content in images.items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_nav(nav: Navigation, *, config: MkDocsConfig, files: Files) -> None:
    """Remember the order of the pages that people wrote."""
    PAGES.clear()
    made = ("reference/", "notebooks/", "changelog.md")
    PAGES.update({page.file.src_uri: page for page in nav.pages if not page.file.src_uri.startswith(made)})


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Refuse a page that quotes a figure that was not measured, or another value than was."""
    try:
        if figures.fill(markdown, figures.read_parts()) != markdown:
            raise PluginError(f"{page.file.src_uri} quotes figures that have changed: run python docs/figures.py")
    except KeyError as exc:
        raise PluginError(f"{page.file.src_uri}: {exc}") from exc
    return figures.QUOTE.sub(r"\3", markdown).replace("<!-- known models -->", model_table())


def on_post_build(config: MkDocsConfig) -> None:
    """Write the pages for language models: llms.txt lists them, llms-full.txt holds them."""
    index = [f"# {config.site_name}\n", f"> {config.site_description}\n", "## Pages\n"]
    for page in PAGES.values():
        about = " ".join((page.markdown or "").partition("\n")[2].strip().partition("\n\n")[0].split())
        index.append(f"- [{page.title}]({page.canonical_url}): {about}")
    site = Path(config.site_dir)
    (site / "llms.txt").write_text("\n".join(index) + "\n", encoding="utf-8")
    (site / "llms-full.txt").write_text(
        "\n\n".join(page.markdown or "" for page in PAGES.values()), encoding="utf-8"
    )


def model_table() -> str:
    """Return the models that the package knows, as a table."""
    rows = [f"Prices as of {PRICES_AS_OF:%Y-%m-%d}.\n"]
    rows += ["| name | reads (tokens) | price | follows instructions | note |", "|---|---:|---|---|---|"]
    for model in known_models():
        if "<" in model.name and not model.name.startswith("cross-encoder:<owner>"):
            continue
        price = model.price
        cost = (
            "" if price is None else f"${price.per_1m_tokens:g} per million tokens" if price.per_1m_tokens else ""
        )
        if price is not None and price.per_1k_search_units:
            cost = f"${price.per_1k_search_units:g} per 1,000 searches"
        notes = ["listwise: a score depends on the other documents"] * model.listwise
        notes += [model.caution] if model.caution else []
        reads = f"{model.context:,}" if model.context else ""
        rows.append(
            f"| `{model.name}` | {reads} | {cost} | {'yes' * bool(model.instructions)} | {'; '.join(notes)} |"
        )
    return "\n".join(rows)


def notebooks() -> list[Path]:
    """Return the notebooks in their order."""
    return sorted((ROOT / "notebooks").glob("*.ipynb"))


def notebook_page(path: Path) -> tuple[str, dict[str, bytes]]:
    """Return a notebook as Markdown with its stored outputs, and its images by name."""
    notebook = nbformat.read(path, as_version=4)
    text, resources = MarkdownExporter().from_notebook_node(notebook)
    images = {}
    for name, content in resources["outputs"].items():
        images[f"{path.stem}_{name}"] = content
        text = text.replace(f"]({name})", f"]({path.stem}_{name})")
    return text, images


def reference_pages() -> dict[str, dict[str, list[str]]]:
    """Return, for each page of the reference, its modules with the names that are documented there.

    A page is about a package, or about a folder or a tool inside one. A name that a package exports is
    documented at the package, from which it is imported.
    """
    pages: dict[str, dict[str, list[str]]] = {}
    for package, root in SOURCES.items():
        exported: set[str] = set()
        for path in sorted(
            root.joinpath(package).rglob("*.py"), key=lambda path: (path.name != "__init__.py", path)
        ):
            parts = path.relative_to(root).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            names = public_names(path)
            if any(part.startswith("_") for part in parts) or not names:
                continue
            if path.name == "__init__.py":
                exported.update(names)
            else:
                names = [name for name in names if name not in exported]
            if parts[:2] == ("rerank_tools", "cli"):  # commands are for the terminal: docs/command-line.md
                continue
            page = ".".join(parts[:2]) if root.joinpath(*parts[:2]).is_dir() else package
            if names:
                pages.setdefault(page, {})[".".join(parts)] = names
    return dict(sorted(pages.items()))


def public_names(path: Path) -> list[str]:
    """Return a module's ``__all__``, without importing it."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []


def reference_page(modules: dict[str, list[str]]) -> Iterator[str]:
    """Yield the directives by which mkdocstrings documents modules."""
    for module, names in modules.items():
        yield f"::: {module}\n    options:\n      members: {names}"


def reference_index() -> str:
    """Return the list of pages with what each is about."""
    lines = ["# API reference\n", "Every public module, from the docstrings of the code.\n"]
    for page in reference_pages():
        folder = SOURCES[page.partition(".")[0]].joinpath(*page.split("."))
        about = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
        lines.append(f"- [`{page}`]({page}.md): {' '.join(about.partition(chr(10) * 2)[0].split())}")
    return "\n".join(lines) + "\n"
