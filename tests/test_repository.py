"""The repository itself: tools that must pass, what imports what, sizes, docstrings, tests that assert, the wheel."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import neko_rules
from neko_rules.backend import BUILT_IN, get_backend
from neko_rules.experiments.listing import KINDS
from neko_rules.experiments.parts import registry_of
from neko_rules.registry import Registry

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TESTS = sorted((ROOT / "tests").glob("*.py"))
PYTHON = sorted(
    path
    for folder in ("neko_rules", "backends", "benchmarks", "docs", "examples", "tests")
    for path in (ROOT / folder).rglob("*.py")
)


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def run(*command: str, **options: Any) -> str:
    """The output of a command that must succeed in the root of the repository."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **{"cwd": ROOT, **options})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# Tools.


@pytest.mark.parametrize(
    "command",
    ["ruff check --no-fix", "ruff format --check --diff", "mypy"],
    ids=lambda command: command.split(" --")[0],
)
def test_a_tool_has_nothing_to_say(command: str) -> None:
    pytest.importorskip(command.split()[0])
    run(sys.executable, "-m", *command.split())


def test_the_site_has_every_part(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    run(sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path))
    for kind, key in KINDS.items():
        registry = registry_of(key)
        if registry is None:
            continue
        page = (tmp_path / "reference" / kind / "index.html").read_text(encoding="utf-8")
        names = [f"{each.__module__}.{each.__qualname__}" for each in map(registry.__getitem__, registry)]
        # What the tests themselves register is no part of the package.
        own = [name for name in names if name.startswith("neko_rules.")]
        assert own, kind
        assert [name for name in own if f'id="{name}"' not in page] == []
        assert "```" not in page, "a fence of an example was taken for text"


# Imports.

HEAVY = [
    "torch",
    "tensorflow",
    "jax",
    "numba",
    "triton",
    "scipy",
    "sympy",
    "matplotlib",
    "pydantic",
    "rich",
    "typer",
    "yaml",
    "safetensors",
]

ROWS = (
    ("__main__",),
    ("cli",),
    ("experiments",),
    ("trainers", "testing"),
    ("report",),
    ("probabilistic", "costs"),
    ("rules",),
    ("credit",),
    ("evaluator",),
    ("chains",),
    ("scoring", "replaced", "fit", "inputs"),
    ("regularizers",),
    ("nir",),
    ("layers",),
    # What knows nothing of networks.
    ("samplers", "devices", "datasets", "encoders", "losses", "metrics", "optimizers", "clipping"),
    ("initializers", "schedules", "surrogates", "targets"),
    ("portable",),
    ("trees",),
    # What knows nothing but arrays.
    ("kernels",),
    ("backends",),
    ("threads",),
    ("backend",),
    ("recorded",),
    ("pairs",),
    ("alike", "arguments", "on_request", "optional", "ours", "registry", "seeding", "setting", "tensor_file"),
    ("errors",),
)
"""Every module or package of neko_rules; each imports only from rows below its own."""

ROW = {part: place for place, row in enumerate(ROWS) for part in row}


def modules() -> Iterator[tuple[str, Path]]:
    """Dotted name and file of every module of the package; backends/ is installed as neko_rules.backends."""
    for folder, package in ((ROOT / "neko_rules", "neko_rules"), (ROOT / "backends", "neko_rules.backends")):
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            yield ".".join([package, *(part for part in parts if part != "__init__")]), path


def imported(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import in a file, also within functions; all imports here are absolute."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def part_of(name: str) -> str | None:
    """The row entry that a dotted name of the package belongs to; ``neko_rules.ALIF`` lives in ``layers``."""
    package, _, rest = name.partition(".")
    if package != "neko_rules" or not rest or rest == "__version__":
        return None
    first = rest.split(".")[0]
    home = neko_rules._HOME.get(first)
    return part_of(home) if home else first


def test_every_module_has_a_row() -> None:
    assert {part for name, _ in modules() if (part := part_of(name))} <= set(ROW)


@pytest.mark.parametrize("path", [path for _, path in modules()], ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    own = part_of(next(name for name, found in modules() if found == path))
    if own is None:
        return  # The front door names everything and loads it on first use.
    upward = [
        f"line {line}: {name}"
        for line, name in imported(parsed(path))
        if (part := part_of(name)) and part != own and ROW[part] <= ROW[own]
    ]
    assert not upward


def test_only_declared_libraries_are_imported() -> None:
    # pydantic_core and llvmlite come with pydantic and Numba, whose documentation imports from there.
    distributions = {"yaml": "PyYAML", "pydantic_core": "pydantic", "llvmlite": "numba"}
    declared = {re.split(r"[<>=\[ ;]", line)[0] for line in PROJECT["project"]["dependencies"]}
    extras = set(BUILT_IN)
    for name, path in modules():
        for line, found in imported(parsed(path)):
            library = found.split(".")[0]
            if library in sys.stdlib_module_names or library == "neko_rules":
                continue
            speaks = name.startswith(("neko_rules.backends.", "neko_rules.layers.adaptors."))
            allowed = {*extras, "keras"} if speaks and library in {*extras, "keras"} else declared
            if name.startswith("neko_rules.kernels."):
                allowed = {*declared, "numba"}
            if name == "neko_rules.threads":
                allowed = {*declared, "threadpoolctl"}
            assert distributions.get(library, library) in allowed, f"{path}:{line} imports {library}"


def test_importing_the_package_loads_nothing_heavy() -> None:
    libraries = ["torch", "tensorflow", "jax", *HEAVY]
    code = f"import sys, neko_rules, neko_rules.backend; print([m for m in {libraries} if m in sys.modules])"
    assert run(sys.executable, "-c", code).strip() == "[]"


def test_a_model_and_a_rule_load_no_array_library_but_numpy() -> None:
    libraries = ["torch", "tensorflow", "jax"]
    code = f"""
import sys
from neko_rules import ALIF, EProp, Evaluator, Trainer
EProp(Evaluator(ALIF(4, 2, inputs=3), metrics=["accuracy"]))
print([m for m in {libraries} if m in sys.modules])"""
    assert run(sys.executable, "-c", code).strip() == "[]"


# Sizes, names, docstrings.


def test_no_file_is_long() -> None:
    limits = {path: 250 if path.parent.name == "backends" else 600 for path in PYTHON}
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in PYTHON}
    assert {str(path): lengths[path] for path in PYTHON if lengths[path] > limits[path]} == {}


def test_every_example_is_short() -> None:
    examples = [path for path in PYTHON if path.parent.name == "examples"]
    assert examples
    assert all(len(path.read_text(encoding="utf-8").splitlines()) < 80 for path in examples)


def registries() -> dict[str, Registry[Any]]:
    found = {}
    for module in pkgutil.walk_packages(neko_rules.__path__, "neko_rules."):
        if not module.name.startswith(("neko_rules.backends.", "neko_rules.__main__")):
            values = vars(importlib.import_module(module.name)).values()
            found.update({value.kind: value for value in values if isinstance(value, Registry)})
    return found


def test_every_registered_part_says_what_it_is() -> None:
    described = {kind: registry.describe() for kind, registry in registries().items()}
    assert {"neuron", "rule", "optimizer", "surrogate", "loss"} <= set(described)
    for kind, rows in described.items():
        assert rows, f"no {kind} is registered"
        for name, line in rows:
            assert len(line) > 10, f"{kind} {name} has no first docstring line"
            assert line.endswith("."), f"the first docstring line of {kind} {name} is cut: {line!r}"
        assert len({line for _, line in rows}) == len(rows), f"two {kind} parts say the same of themselves"


def test_a_source_tree_has_its_own_backends() -> None:
    """Whatever else is installed: they lie beside the package there, and not within."""
    program = f"""
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
sys.path.insert(0, {str(ROOT)!r})
import neko_rules.backends.numpy
print(neko_rules.backends.__file__, neko_rules.ALIF(8, 2).nx.name)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT.parent, timeout=120
    )
    assert done.stdout.split() == [str(ROOT / "backends" / "__init__.py"), "numpy"]


def test_every_backend_says_what_it_is(backend: str) -> None:
    nx = get_backend(backend)
    assert nx.name == backend
    assert nx.description


def undocumented(tree: ast.Module) -> Iterator[str]:
    """Public classes and functions (not methods) without a docstring, and a module without one."""
    for node in [tree, *(n for n in tree.body if isinstance(n, (ast.ClassDef, ast.FunctionDef)))]:
        name = "the module" if isinstance(node, ast.Module) else node.name
        if not name.startswith("_") and not (ast.get_docstring(node) or "").split("\n")[0].strip():
            yield name


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: str(path.relative_to(ROOT)))
def test_public_names_are_documented(path: Path) -> None:
    # In tests and benchmarks a name says enough; methods are the business of ruff's D1 rules.
    wanted = {"the module"} if path.parent.name in ("tests", "benchmarks") else None
    missing = [name for name in undocumented(parsed(path)) if wanted is None or name in wanted]
    assert not missing


# Tests that test.


def called(node: ast.AST) -> set[str]:
    """Last names of all functions called in a piece of code."""
    functions = [call.func for call in ast.walk(node) if isinstance(call, ast.Call)]
    return {
        f.attr if isinstance(f, ast.Attribute) else f.id for f in functions if isinstance(f, (ast.Attribute, ast.Name))
    }


ASSERTING = {"raises", "warns", "fail"}


def asserts(node: ast.AST, helpers: set[str]) -> bool:
    names = called(node)
    return (
        any(isinstance(inner, ast.Assert) for inner in ast.walk(node))
        or bool(names & (ASSERTING | helpers))
        or any("assert" in name or "check" in name for name in names)
    )


def functions(tree: ast.Module) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def test_every_test_asserts() -> None:
    trees = {path.name: parsed(path) for path in TESTS}
    helpers: set[str] = set()
    everything = [f for tree in trees.values() for f in functions(tree) if not f.name.startswith("test_")]
    while found := {f.name for f in everything if f.name not in helpers and asserts(f, helpers)}:
        helpers |= found  # A helper asserts if it calls a helper that asserts.
    silent = [
        f"{name}::{f.name}"
        for name, tree in trees.items()
        for f in functions(tree)
        if f.name.startswith("test_") and not asserts(f, helpers)
    ]
    assert not silent


def test_a_test_without_an_assertion_would_be_found() -> None:
    silent = ast.parse("def test_nothing():\n    np.allclose(a, b)")
    assert not asserts(silent, set())
    assert list(thrown_away(silent)) == [2]


COMPARING = {
    "allclose",
    "array_equal",
    "array_equiv",
    "isclose",
    "equal",
    "all",
    "any",
    "isfinite",
    "equals",
    "is_file",
}


def thrown_away(tree: ast.AST) -> Iterator[int]:
    """Lines on which a comparison is made and nobody looks at the answer."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Expr):
            continue
        function = node.value.func if isinstance(node.value, ast.Call) else None
        name = getattr(function, "attr", getattr(function, "id", ""))
        if isinstance(node.value, (ast.Compare, ast.BoolOp)) or name in COMPARING:
            yield node.lineno


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_no_comparison_is_thrown_away(path: Path) -> None:
    # Within pytest.raises a comparison may be what raises.
    tree = parsed(path)
    excused = {
        inner.lineno
        for block in ast.walk(tree)
        if isinstance(block, ast.With) and "raises" in called(ast.Tuple([item.context_expr for item in block.items]))
        for inner in block.body
    }
    assert [line for line in thrown_away(tree) if line not in excused] == []


# Layout and packaging.


def test_top_level_folders() -> None:
    ignored = {line.strip("/") for line in (ROOT / ".gitignore").read_text(encoding="utf-8").split()}
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
    found = {name for name in folders - ignored if not name.endswith(".egg-info")}
    expected = {"backends", "benchmarks", "configs", "examples", "neko_rules", "tests"}
    assert expected <= found
    assert found <= expected | {"docs"}


def test_every_package_is_listed() -> None:
    packages = {name for name, path in modules() if path.name == "__init__.py"}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == packages


def test_versions_agree() -> None:
    version = PROJECT["project"]["version"]
    assert neko_rules.__version__ == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    first = re.search(r"```(?:sh|bash|console)?\n(.*?)```", readme, flags=re.DOTALL)
    assert first, "the README must begin with the two commands"
    assert re.findall(r"make \w+", first[1]) == ["make demo", "make test"]
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert re.search(r"^make test\b", script.read_text(encoding="utf-8"), flags=re.MULTILINE)


def test_a_wheel_holds_all_packages(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="77")
    source = tmp_path / "source"
    for name in ("neko_rules", "backends"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--no-index", "-w", str(tmp_path)]
    run(*pip, str(source), cwd=tmp_path)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(next(name for name in names if name.endswith("/METADATA"))).decode()
    wanted = {
        f"{name.replace('.', '/')}/__init__.py" if p.name == "__init__.py" else f"{name.replace('.', '/')}.py"
        for name, p in modules()
    }
    page = {f"neko_rules/report/page/report.{kind}" for kind in ("css", "js")}
    assert wanted | page | {"neko_rules/py.typed"} <= names
    assert {name.split("/")[0] for name in names} == {"neko_rules", f"neko_rules-{neko_rules.__version__}.dist-info"}
    assert "License-Expression: MIT" in metadata
    assert "Provides-Extra: all" in metadata
