"""Reference: pages of the site that are made, not written: the README, CONTRIBUTING, and one for each kind of part.

Hooks of mkdocs, and an extension of griffe, which reads the docstrings. No part is named here: a page lists what its
registry knows, each part below the docstring of its file.
"""

from __future__ import annotations

import importlib
import inspect
import re
import textwrap
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from neko_rules.experiments.listing import KINDS
from neko_rules.experiments.parts import registry_of
from neko_rules.registry import Registry

ROOT = Path(__file__).resolve().parents[1]

OTHERS = {
    "networks": ("neko_rules", ("neko_rules.evaluator", "neko_rules.layers")),
    "trainers": ("neko_rules.trainers", ("neko_rules.trainers",)),
    "sampling": ("neko_rules.probabilistic", ("neko_rules.probabilistic",)),
    "samplers": ("neko_rules.samplers", ("neko_rules.samplers",)),
    "streams": ("neko_rules", ("neko_rules.rules.streaming",)),
    "backends": ("neko_rules.backend", ("neko_rules.backend",)),
    "exchange": ("neko_rules.nir", ("neko_rules.nir",)),
    "testing": ("neko_rules.testing", ("neko_rules.testing",)),
}
"""Pages of what has no kind in a configuration: where names are looked up, and in which modules they are defined."""


class Fenced(griffe.Extension):
    """Examples as code: in a docstring they are told by their prompts."""

    def on_object(self, *, obj: griffe.Object, **others: Any) -> None:
        """Fence what follows a prompt, up to the next empty line."""
        if obj.docstring is not None:
            prompts = r"(?m)(?P<before>^.*\n\s*?)^(?P<indent> *)>>> .*(?:\n(?! *\n).+)*"
            obj.docstring.value = re.sub(prompts, _fenced, obj.docstring.value)


def _fenced(found: re.Match[str]) -> str:
    """A block of prompts and answers between fences, at the margin where it follows a paragraph there."""
    before, indent = found["before"], found["indent"]
    block = found[0].removeprefix(before)
    if "\n\n" in before and not before.startswith(" "):
        block, indent = textwrap.dedent(block), ""
    return f"{before}{indent}```pycon\n{block}\n{indent}```"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the reference behind the guides."""
    assert config.nav is not None, "mkdocs.yml has a nav"
    config.nav.append({"Reference": [f"reference/{title}.md" for title in (*OTHERS, *kinds())]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made."""
    made = {"index.md": _from_root("README.md"), "contributing.md": _from_root("CONTRIBUTING.md")}
    listed = {part for parts in kinds().values() for part in parts}
    for title, where in OTHERS.items():
        made[f"reference/{title}.md"] = page(title, (part for part in public(*where) if part not in listed))
    made |= {f"reference/{kind}.md": page(kind, parts) for kind, parts in kinds().items()}
    for path, text in made.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Name files of the repository that are no pages, instead of linking to them; what tests run is plain Python."""
    return re.sub(
        r"\[(`?[^]`]*`?)\]\((?:\.\./)*(?:LICENSE|CITATION\.cff|examples/[^)]*)\)",
        r"\1",
        markdown.replace("```python no-run", "```python"),
    )


def _from_root(name: str) -> str:
    """A file beside the folder of guides, with its links as they are from within."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return text.replace("](docs/", "](").replace("](CONTRIBUTING.md)", "](contributing.md)")


@cache
def kinds() -> dict[str, list[Any]]:
    """For every kind that has a registry its base class and the parts, in the order of their files."""
    found = {kind: registry_of(key) for kind, key in KINDS.items()}
    return {
        kind: [*_base(registry), *sorted(map(registry.__getitem__, registry), key=_file)]
        for kind, registry in found.items()
        if registry is not None
    }


def _base(registry: Registry[Any]) -> list[Any]:
    """What the parts of a kind are instances of, where that says anything."""
    return [] if registry.base is object else [registry.base]


def public(where: str, prefixes: tuple[str, ...]) -> list[Any]:
    """The classes and functions that a module offers and that are defined below one of some others."""
    module = importlib.import_module(where)
    found = (getattr(module, name) for name in getattr(module, "__all__", dir(module)) if not name.startswith("_"))
    return sorted((each for each in found if callable(each) and _file(each).startswith(prefixes)), key=_file)


def _file(part: Any) -> str:
    return str(getattr(part, "__module__", ""))


def module_text(name: str) -> str:
    """The docstring of a module as Markdown: its first line as a heading."""
    title, _, rest = (inspect.getdoc(importlib.import_module(name)) or name).partition("\n")
    return f"## {title.rstrip('.')}\n\n{_with_gaps(rest.strip())}\n\n"


def _with_gaps(text: str) -> str:
    """Equations, which are indented, after an empty line: Markdown takes them for text otherwise."""
    return re.sub(r"(?m)^(\S.*)\n(?= {4})", r"\1\n\n", text)


def page(title: str, parts: Iterable[Any]) -> str:
    """Parts one after the other, each module's docstring above those that it defines."""
    text, module = f"# {title.capitalize()}\n\n", ""
    for part in dict.fromkeys(parts):
        if part.__module__ != module:
            module = part.__module__
            text += module_text(module)
        text += f"::: {part.__module__}.{part.__qualname__}\n    options: {{heading_level: 3}}\n\n"
    return text
