"""Explaining: what a part is, in its own words: equations, limits, cost and paper, from where they are written once."""

from __future__ import annotations

import importlib
import inspect
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from neko_rules.errors import ArgumentError, nearest
from neko_rules.experiments.listing import KINDS, listing
from neko_rules.experiments.parts import PLAIN, registry_of
from neko_rules.registry import folded

if TYPE_CHECKING:
    from rich.console import RenderableType

FACTS = ("paper", "time", "memory", "identity")
"""What a rule says of itself, in the order in which it is shown; time and memory are per example."""

KEYS = {
    "layer": ("neko_rules.layers.models", "Layer"),
    "population": ("neko_rules.layers.graph", "Population"),
    "connection": ("neko_rules.layers.graph", "Connection"),
    "crossbar": PLAIN["crossbar"],
    "posterior": ("neko_rules.probabilistic", "Posterior"),
    "early_stopping": ("neko_rules.trainers", "EarlyStopping"),
    "checkpoint": ("neko_rules.trainers", "Checkpoint"),
}
"""What in a configuration is the arguments of one class, and the class."""

INDENT = 4
"""Columns by which the facts about a rule stand below its name."""


@dataclass(frozen=True)
class RuleFacts:
    """A rule in one row.

    Args:
        name: first spelling.
        axes: its point on the axes of credit, or what it is instead.
        time: operations.
        memory: what it keeps while it learns.
        requires: what the model must offer.
        identity: what it equals exactly.
        paper: author and year.
    """

    name: str
    axes: str
    time: str
    memory: str
    requires: str
    identity: str
    paper: str


@dataclass(frozen=True)
class Explanation:
    """A part explained.

    Args:
        kind: what it is, such as ``"rules"``.
        name: first spelling.
        head: the text at the head of its file, if the file is about it: equations and papers.
        body: its own text: arguments, errors, an example.
        facts: name → text, in order.
        others: the other kinds in which there is a part of that name.
    """

    kind: str
    name: str
    head: str
    body: str
    facts: dict[str, str]
    others: tuple[str, ...] = ()


def rule_facts() -> list[RuleFacts]:
    """Every rule in a row.

    Example:
        >>> facts = {row.name: row for row in rule_facts()}
        >>> facts["ottt"].axes
        'presynaptic · symmetric · instantaneous'
    """
    from neko_rules.rules import RULES

    return [_facts(name) for name in RULES]


def other_rules() -> list[tuple[str, str]]:
    """Name and line of every rule that does not train but draws weights."""
    from neko_rules.rules import RULES

    return [(name, line) for name, line in listing("rules") if name not in RULES]


def rules_shown() -> list[RenderableType]:
    """Every rule for the terminal: axes of credit, needs, paper, cost and identity; then those that draw weights."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    parts: list[RenderableType] = []
    for row in rule_facts():
        parts.append(Text.assemble((row.name, "bold cyan"), f"  {row.axes}  ", (f"needs {row.requires}", "dim")))
        facts = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        facts.add_column(style="dim", no_wrap=True)
        for key, text in (
            ("operations", row.time),
            ("memory", row.memory),
            ("identity", row.identity),
            ("paper", row.paper),
        ):
            facts.add_row(key, Text(text))
        parts.append(Padding(facts, (0, 0, 0, INDENT), expand=False))
    legend = "N neurons, K outputs, P parameters, T time steps; 'neko explain RULE' gives its equations and limits."
    drawing = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
    drawing.add_column(style="bold cyan", no_wrap=True)
    for name, line in other_rules():
        drawing.add_row(name, Text(line))
    title = Text("\nrules that draw weights from their posterior", "bold")
    return [*parts, Text(f"\n{legend}", "dim"), title, drawing]


def _facts(name: str) -> RuleFacts:
    from neko_rules.rules import RULES

    maker: Any = RULES[name]
    about = getattr(maker, "about", {})
    said = [about.get(key, "") for key in ("time", "memory")]
    identity, paper = about.get("identity", ""), about.get("paper", "")
    return RuleFacts(name, _axes(name), said[0], said[1], maker.requires, identity, paper)


def _axes(name: str) -> str:
    """Temporal, spatial, learning signal, and what is not usual of trace and schedule, from a rule on a small model."""
    from neko_rules import LIF, Evaluator
    from neko_rules.rules import RULES, LearningRule

    maker: Any = RULES[name]
    if not (isinstance(maker, type) and issubclass(maker, LearningRule)):
        return str(getattr(maker, "about", {}).get("axes", "no gradient from above"))
    rule = RULES.create(name, {}, Evaluator(LIF(2, 2, recurrent=False)))
    assert isinstance(rule, LearningRule), "made by a subclass of it"
    parts = [rule.credit.temporal, rule.credit.spatial, rule.credit.learning_signal]
    parts += [rule.credit.trace.replace("_", " ")] if rule.credit.trace != "exact" else []
    parts += ["spike times"] if rule.credit.timed else []
    parts += ["online"] if rule.online else [f"windows of {rule.window}"] if rule.window else []
    return " · ".join(parts)


def explanation(name: str, only: str | None = None) -> Explanation:
    """A part by name, of one kind or of whichever has it; rules come first, then neurons.

    Raises:
        ArgumentError: nothing has that name, or there is no such kind.

    Example:
        >>> found = explanation("E-Prop")
        >>> found.kind, found.name, found.head.splitlines()[0]
        ('rules', 'eprop', 'EProp: e-prop, eligibility propagation, with symmetric, random or adaptive feedback.')
    """
    if only is not None and only not in KINDS:
        raise ArgumentError("unknown kind of part", received=only, works=nearest(only, KINDS))
    # A neuron and the model that is made of it may share a name, a metric and a regulariser too.
    kinds = sorted(KINDS, key=lambda each: each not in ("rules", "neurons")) if only is None else [only]
    registries = {kind: registry for kind in kinds if (registry := registry_of(KINDS[kind])) is not None}
    found = [kind for kind, registry in registries.items() if name in registry]
    if not found:
        return _of_key(name, [each for registry in registries.values() for each in registry], only)
    kind, *others = found
    canonical = registries[kind].canonical(name)
    maker: Any = registries[kind][canonical]
    head, body = inspect.getdoc(sys.modules[maker.__module__]) or "", inspect.getdoc(maker) or ""
    return Explanation(kind, canonical, head, body, _facts_of(kind, canonical, maker), tuple(others))


def _of_key(name: str, known: list[str], only: str | None) -> Explanation:
    """What a configuration takes the arguments of, though it has no name there."""
    for key, (module, of_class) in KEYS.items() if only is None else ():
        if folded(key) == folded(name):
            made: Any = getattr(importlib.import_module(module), of_class)
            head, body = inspect.getdoc(sys.modules[made.__module__]) or "", inspect.getdoc(made) or ""
            return Explanation("keys of a configuration", key, head, body, {})
    listed = [kind for kind, key in KINDS.items() if name in (kind, key)]
    works = f"neko list {listed[0]} shows what there is" if listed else nearest(name, [*known, *KEYS])
    raise ArgumentError("nothing that can be explained has this name", received=name, works=works)


def shown_explanation(found: Explanation, width: int) -> list[RenderableType]:
    """An explanation for a terminal of so many columns."""
    from rich.table import Table
    from rich.text import Text

    from neko_rules.report.readable import filled

    parts: list[RenderableType] = [Text.assemble((found.name, "bold cyan"), f"   one of the {found.kind}")]
    parts += [Text(f"also one of the {kind}: neko explain {found.name} --kind {kind}", "dim") for kind in found.others]
    parts.append(Text())
    if found.facts:
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for key, text in found.facts.items():
            table.add_row(key, Text(text or "not stated"))
        parts += [table, Text()]
    for text in (found.head, found.body):
        parts += [Text(filled(text, width)), Text()]
    return parts


def _facts_of(kind: str, name: str, maker: Any) -> dict[str, str]:
    """What is known of a part beside its text: a rule's axes and cost, a neuron's derivatives."""
    from neko_rules.rules import RULES

    if kind == "rules" and name in RULES:
        row = _facts(name)
        facts = {"axes": row.axes, "requires": row.requires, "time": row.time, "memory": row.memory}
        return {**facts, "identity": row.identity, "paper": row.paper}
    if kind == "neurons":
        from neko_rules.layers.jacobians import Jacobians

        return {"derivatives": str(Jacobians.of(maker(), dt=1e-3))}
    return {}
