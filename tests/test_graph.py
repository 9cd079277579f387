"""Graphs: order and components against reachability by brute force, names of parameters, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neko_rules.errors import ArgumentError
from neko_rules.initializers import Orthogonal
from neko_rules.layers.graph import Connection, Graph, Population, bias_name

Edge = tuple[str, str, int]


def graph(names: str, *edges: Edge, output: str = "") -> Graph:
    """A graph of one-letter populations, the last of which is the output."""
    populations = {name: Population("lif", place + 1) for place, name in enumerate(names)}
    connections = tuple(Connection(*edge, label=f"{edge[0]}{edge[2]}") for edge in edges)
    return Graph(populations, connections, output or names[-1])


def reachable(names: str, edges: list[tuple[str, str]]) -> dict[tuple[str, str], bool]:
    """Whether there is a path of at least one edge (Warshall 1962)."""
    found = {(a, b): (a, b) in edges for a in names for b in names}
    for through in names:
        for a in names:
            for b in names:
                found[a, b] = found[a, b] or (found[a, through] and found[through, b])
    return found


# Order and components.


def test_a_stack_is_one_component_per_layer() -> None:
    stack = graph("abc", ("input", "a", 0), ("a", "a", 1), ("a", "b", 0), ("b", "b", 1), ("b", "c", 0))
    assert stack.order == ("a", "b", "c")
    assert stack.components == (("a",), ("b",), ("c",))


def test_populations_that_feed_back_are_one_component_in_the_order_of_the_step() -> None:
    both = graph("abc", ("b", "a", 0), ("a", "b", 1), ("a", "c", 0))
    assert both.components == (("b", "a"), ("c",))
    assert [c.weight for c in both.within(("b", "a"))] == ["a.b0.weight", "b.a1.weight"]


def test_a_delayed_connection_downwards_joins_nothing() -> None:
    assert graph("ab", ("a", "b", 1), ("input", "a", 0)).components == (("a",), ("b",))


def test_a_skip_connection_keeps_the_order() -> None:
    assert graph("cab", ("a", "b", 0), ("a", "c", 0), ("c", "b", 0)).order == ("a", "c", "b")


def test_a_long_loop_is_one_component() -> None:
    loop = graph("abcd", ("a", "b", 0), ("b", "c", 0), ("c", "a", 1), ("c", "d", 0))
    assert loop.components == (("a", "b", "c"), ("d",))


def test_populations_without_connections_keep_the_order_in_which_they_were_named() -> None:
    assert graph("dbca").order == ("d", "b", "c", "a")


EDGES = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.sampled_from("abcdef"), st.integers(0, 1)), max_size=14, unique=True
)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 6), EDGES)
def test_random_graphs_against_brute_force(size: int, edges: list[Edge]) -> None:
    names = "abcdef"[:size]
    edges = [edge for edge in edges if edge[0] in names and edge[1] in names]
    in_step = reachable(names, [(a, b) for a, b, delay in edges if not delay])
    at_all = reachable(names, [(a, b) for a, b, _ in edges])
    if any(in_step[name, name] for name in names):
        with pytest.raises(ArgumentError, match="connections without delay form a cycle"):
            graph(names, *edges)
        return
    built = graph(names, *edges)
    assert sorted(built.order) == sorted(names)
    assert built.order == tuple(name for component in built.components for name in component)
    place = {name: i for i, name in enumerate(built.order)}
    home = {name: i for i, component in enumerate(built.components) for name in component}
    for a in names:
        for b in names:
            assert not in_step[a, b] or place[a] < place[b]
            assert (home[a] == home[b]) == (a == b or (at_all[a, b] and at_all[b, a]))
            assert not at_all[a, b] or home[a] <= home[b]


# Names, shapes, parts.


def test_names_and_shapes_of_the_parameters() -> None:
    built = Graph(
        {"a": Population("lif", 3), "b": Population("tanh", 2, bias=False)},
        (
            Connection("input", "a"),
            Connection("a", "a", 1),
            Connection("a", "b", label="up"),
            Connection("input", "b", 1),
        ),
        "b",
    )
    assert built.parameter_shapes(inputs=5) == {
        "a.from_input.weight": (5, 3), "a.recurrent.weight": (3, 3), "a.bias": (3,),
        "b.up.weight": (3, 2), "b.from_input.weight": (5, 2),
    }  # fmt: skip
    assert bias_name("a") == "a.bias"
    assert [c.weight for c in built.into("b")] == ["b.up.weight", "b.from_input.weight"]
    assert built.size("input", 5) == 5
    assert built.size("b", 5) == 2
    assert built.cell("b").spiking is False


def test_two_connections_between_the_same_ends_by_labels() -> None:
    double = graph("ab", ("a", "b", 0), ("a", "b", 1))
    assert set(double.parameter_shapes(1)) == {"a.bias", "b.bias", "b.a0.weight", "b.a1.weight"}


@pytest.mark.parametrize(
    ("source", "autapses", "hollow"), [("a", False, True), ("a", True, False), ("b", False, False)]
)
def test_only_a_population_s_own_connection_lacks_a_diagonal(source: str, autapses: bool, hollow: bool) -> None:
    assert Connection(source, "a", 1, autapses=autapses).hollow is hollow


def test_parts_by_name_mapping_or_object() -> None:
    by_mapping = Connection("a", "b", initializer={"name": "orthogonal", "gain": 2.0})
    assert by_mapping == Connection("a", "b", initializer=Orthogonal(gain=2.0))
    assert Population({"name": "lif", "threshold": 0.5}, 2).cell.threshold == 0.5  # type: ignore[union-attr]


# What is refused.


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: graph("ab", ("a", "b", 0), ("b", "a", 0)), "without delay form a cycle (received: a → b)"),
        (lambda: graph("a", ("a", "a", 0)), "without delay form a cycle (received: a); give one of them delay=1."),
        (lambda: graph("abc", ("a", "b", 0), ("b", "c", 0), ("c", "a", 0)), "a → b → c"),
        (lambda: graph("ab", ("a", "x", 0)), "a connection ends at an unknown population (received: x)"),
        (lambda: graph("ab", ("y", "a", 0)), "a connection ends at an unknown population (received: y)"),
        (lambda: Graph({"hidden": Population("lif", 1)}, (Connection("hiden", "hidden"),), "hidden"), "mean 'hidden'?"),
        (lambda: graph("ab", output="c"), "the output must be a population (received: c)"),
        (lambda: graph("ab", output="input"), "the output must be a population"),
        (
            lambda: graph("ab", ("a", "b", 0), ("a", "b", 0)),
            "two connections have the same name (received: b.a0.weight)",
        ),
        (
            lambda: Graph({"input": Population("lif", 1)}, (), "input"),
            "'input' stands for the data; choose another name",
        ),
        (lambda: Connection("a", "input"), "a connection cannot lead into the input (received: a → input)"),
        (
            lambda: Connection("a", "b", delay=2),
            "delay must be a whole number of at least 0 and at most 1 (received: 2)",
        ),
        (lambda: Connection("a", "b", delay=True), "delay must be a whole number"),
        (lambda: Connection("a", "a", 1, autapses="no"), "autapses must be true or false"),
        (lambda: Connection("a", "b", initializer="orthogonl"), "did you mean 'orthogonal'?"),
        (lambda: Population("lif", 0), "size must be a whole number of at least 1 (received: 0)"),
        (lambda: Population("lif", 2.0), "size must be a whole number"),
        (lambda: Population("lif", 2, bias=1), "bias must be true or false"),
        (lambda: Population("liff", 2), "unknown neuron"),
        (lambda: Population(3, 2), "a neuron must be a name, a mapping with a name, or a Cell"),
    ],
)
def test_refusals_are_one_sentence(make: Any, says: str) -> None:
    with pytest.raises(ArgumentError) as refusal:
        make()
    assert says in str(refusal.value)
    assert str(refusal.value).endswith((".", "?"))


def test_sizes_may_be_numpy_integers() -> None:
    assert Population("lif", np.int64(3)).size == 3
