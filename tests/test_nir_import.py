"""Graphs of NIR that other programs write: every parameter counts, or is refused by name."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neko_rules import LIF
from neko_rules.errors import DataError, IncompatibleError, NekoWarning
from neko_rules.nir import from_nir, to_nir

nir = pytest.importorskip("nir")

from nir_cases import data, outputs, spikes  # noqa: E402
from nir_simulation import Simulator  # noqa: E402


def arrays(**given: Any) -> dict[str, np.ndarray]:
    return {name: np.asarray(value, float) for name, value in given.items()}


FOREIGN: dict[str, Any] = {
    "LIF": nir.LIF(
        **arrays(tau=[5e-3, 9e-3], r=[2.0, 3.0], v_leak=[0.1, -0.2]),
        **arrays(v_threshold=[0.5, 0.6], v_reset=[0.05, -0.1]),
    ),
    "LI": nir.LI(**arrays(tau=[5e-3, 9e-3], r=[2.0, -3.0], v_leak=[0.1, -0.2])),
    "IF": nir.IF(**arrays(r=[200.0, 300.0], v_threshold=[0.5, 0.6], v_reset=[0.05, -0.1])),
    "I": nir.I(**arrays(r=[20.0, 30.0])),
    "CubaLIF": nir.CubaLIF(
        **arrays(tau_syn=[3e-3, 4e-3], tau_mem=[5e-3, 9e-3], r=[4.0, 3.0], v_leak=[0.1, -0.2]),
        **arrays(v_threshold=[0.5, 0.6], v_reset=[0.1, -0.2], w_in=[1.5, 2.5]),
    ),
    "CubaLI": nir.CubaLI(
        **arrays(tau_syn=[3e-3, 4e-3], tau_mem=[5e-3, 9e-3], r=[4.0, 3.0], v_leak=[0.0, 0.0], w_in=[1.5, 2.5])
    ),
    "Threshold": nir.Threshold(**arrays(threshold=[0.5, 0.6])),
}


def chain(*nodes: Any, typed: bool = True) -> Any:
    return nir.NIRGraph.from_list(nir.Input(np.array([3])), *nodes, type_check=typed)


def entry() -> Any:
    rng = np.random.default_rng(4)
    return nir.Affine(rng.normal(size=(2, 3)), np.array([0.3, -0.1]))


def pool(size: Any, stride: Any = None, padding: int = 0) -> Any:
    return nir.AvgPool2d(*(np.broadcast_to(each, 2) for each in (size, size if stride is None else stride, padding)))


@pytest.mark.parametrize("dt", [1e-3, 0.3e-3])
@pytest.mark.parametrize("kind", FOREIGN)
def test_every_parameter_of_every_neuron_counts(kind: str, dt: float) -> None:
    node, x = FOREIGN[kind], data(3, steps=300)
    graph = chain(entry(), node)
    name = kind.lower()
    start = {name: node.v_reset} if hasattr(node, "v_reset") else None
    expected = Simulator(graph, dt, [name]).run(x, start)["output"].swapaxes(0, 1)
    found = outputs(from_nir(graph, dt, dtype="float64"), x)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)
    assert np.ptp(expected) > 0.05
    fields = [each for each in vars(node) if isinstance(getattr(node, each), np.ndarray)]
    assert fields
    for field in fields:
        kept = getattr(node, field)
        setattr(node, field, kept * 1.3 + 0.02 * ("v_" in field))
        if kind.startswith("Cuba") and field in ("v_leak", "v_reset"):
            with pytest.raises(IncompatibleError, match="v_leak of"):
                from_nir(graph, dt)
        else:
            assert np.abs(outputs(from_nir(graph, dt, dtype="float64"), x) - expected).max() > 1e-6, field
        setattr(node, field, kept)


def test_a_leak_voltage_behind_synapses_is_refused_or_sets_in_with_them() -> None:
    node = nir.CubaLI(**arrays(tau_syn=[3e-3, 4e-3], tau_mem=[5e-3, 9e-3], r=[4.0, 3.0], v_leak=[0.5, 0.2]))
    graph, x = chain(entry(), node), np.zeros((1, 200, 3))
    with pytest.raises(IncompatibleError, match="v_leak of CubaLI 'cubali'"):
        from_nir(graph)
    with pytest.warns(NekoWarning, match="v_leak of CubaLI 'cubali'"):
        near = from_nir(graph, dtype="float64", approximate=True)
    expected = Simulator(graph, 1e-3, ["cubali"]).run(x)["output"].swapaxes(0, 1)
    np.testing.assert_allclose(outputs(near, x)[:, -1], expected[:, -1], rtol=1e-6)


def test_flatten_scale_convolution_and_graphs_within_are_folded() -> None:
    rng = np.random.default_rng(3)
    convolution = nir.Conv2d((6, 5), rng.normal(size=(2, 1, 3, 3)), 1, "same", 1, 1, np.array([0.2, -0.3]))
    layer = (2, 6, 5)
    lif = nir.LIF(*(np.full(layer, value) for value in (5e-3, 3.0, 0.0, 0.6, 0.0)))
    within = nir.NIRGraph(
        {"input": nir.Input(np.array([60])), "fc": nir.Linear(rng.normal(size=(4, 60))), "output": nir.Output([4])},
        [("input", "fc"), ("fc", "output")],
    )
    nodes = {
        "input": nir.Input(np.array([1, 6, 5])),
        "conv": convolution,
        "half": nir.Scale(np.full(layer, 0.5)),
        "lif": lif,
        "flat": nir.Flatten({"input": np.array(layer)}, 0, -1),
        "block": within,
        "gains": nir.Scale(np.array([1.0, 2.0, 3.0, 4.0])),
        "li": nir.LI(np.full(4, 9e-3), np.full(4, 2.0), np.zeros(4)),
        "output": nir.Output(np.array([4])),
    }
    names = list(nodes)
    graph = nir.NIRGraph(nodes, list(pairwise(names)))
    network, x = from_nir(graph, dtype="float64"), data(30)
    assert network.parameters["lif.conv.weight"].shape == (9, 2)
    flat = {**nodes, "block": within.nodes["fc"]}
    convolution.padding = (1, 1)
    simple = nir.NIRGraph(flat, graph.edges, type_check=False)
    expected = Simulator(simple, 1e-3, ["lif", "li"]).run(x)["output"].swapaxes(0, 1)
    assert np.ptp(expected) > 0.5
    np.testing.assert_allclose(outputs(network, x), expected, rtol=1e-11, atol=1e-12)


def test_average_pooling_is_folded_into_what_follows() -> None:
    """Weights behind it stay shared; behind weights, where it is of currents, all is one matrix."""
    rng = np.random.default_rng(6)

    def lif(*shape: int) -> Any:
        return nir.LIF(*(np.full(shape, value) for value in (5e-3, 3.0, 0.0, 0.3, 0.0)))

    nodes = {
        "input": nir.Input(np.array([1, 7, 11])),
        "pool0": pool((1, 2)),
        "conv0": nir.Conv2d((7, 5), rng.normal(size=(2, 1, 2, 2)), 1, (0, 1), 1, 1, np.array([0.2, -0.3])),
        "lif0": lif(2, 6, 6),
        "pool1": pool(2),
        "conv1": nir.Conv2d((3, 3), rng.normal(size=(3, 2, 1, 1)), 1, 0, 1, 1, np.array([0.2, 0.1, -0.3])),
        "currents": pool((1, 3)),
        "lif1": lif(3, 3, 1),
        "pool2": pool((3, 1)),
        "flat": nir.Flatten({"input": np.array((3, 1, 1))}, 0, -1),
        "fc": nir.Linear(rng.normal(size=(4, 3))),
        "li": nir.LI(np.full(4, 9e-3), np.full(4, 2.0), np.zeros(4)),
        "output": nir.Output(np.array([4])),
    }
    graph = nir.NIRGraph(nodes, list(pairwise(nodes)))
    network, x = from_nir(graph, dtype="float64"), data(77)
    weights = {name: value.shape for name, value in network.parameters.items() if name.endswith(".weight")}
    assert weights == {"lif0.conv0.weight": (4, 2), "lif1.conv1.weight": (72, 9), "li.fc.weight": (3, 4)}
    expected = Simulator(graph, 1e-3, ["lif0", "lif1", "li"]).run(x)["output"].swapaxes(0, 1)
    assert np.ptp(expected) > 0.5
    np.testing.assert_allclose(outputs(network, x), expected, rtol=1e-11, atol=1e-12)


def test_a_single_value_stands_for_a_layer() -> None:
    single = nir.LIF(*(np.array(value) for value in (5e-3, 3.0, 0.0, 0.6, 0.0)))
    whole = nir.LIF(*(np.full(2, value) for value in (5e-3, 3.0, 0.0, 0.6, 0.0)))
    found, expected = (from_nir(chain(entry(), node, typed=False), dtype="float64") for node in (single, whole))
    assert spikes(expected, data(3), "lif").any()
    np.testing.assert_array_equal(outputs(found, data(3)), outputs(expected, data(3)))


def test_what_other_programs_mean_by_a_reset() -> None:
    ours = LIF(6, 2, inputs=3, threshold=0.4, dtype="float64")
    with pytest.warns(NekoWarning):
        graph = to_nir(ours, approximate=True)
    x = data(3)
    np.testing.assert_allclose(outputs(from_nir(graph, dtype="float64", reset="subtract"), x), outputs(ours, x), 1e-12)
    assert np.abs(outputs(from_nir(graph, dtype="float64"), x) - outputs(ours, x)).max() > 0.01
    graph.nodes["hidden"].v_reset = np.full(6, 0.1)
    with pytest.raises(IncompatibleError, match="no v_reset"):
        from_nir(graph, reset="subtract")


REFUSED: dict[str, tuple[Any, str]] = {
    "Conv1d": (lambda: [nir.Conv1d(3, np.ones((1, 3, 1)), 1, 0, 1, 1, np.ones(1))], "Conv1d 'conv1d'"),
    "SumPool2d": (lambda: [nir.SumPool2d(np.array([2]), np.array([2]), np.array([0]))], "SumPool2d 'sumpool2d'"),
    "AvgPool2d": (lambda: [pool(2), FOREIGN["LI"]], "AvgPool2d 'avgpool2d' takes pictures"),
    "long delay": (lambda: [nir.Delay(np.full(3, 2e-3)), entry(), FOREIGN["LI"]], "Delay is 0 or one time step"),
    "two delays": (
        lambda: [nir.Delay(np.full(3, 1e-3)), nir.Delay(np.full(3, 1e-3)), entry(), FOREIGN["LI"]],
        "Delay is 0 or one time step",
    ),
    "delays": (lambda: [nir.Delay(np.array([0, 1e-3, 0])), entry(), FOREIGN["LI"]], "Delay is 0 or one time step"),
    "bias before": (lambda: [entry(), nir.Delay(np.full(2, 1e-3)), FOREIGN["LI"]], "a Delay stands before a bias"),
    "threshold": (
        lambda: [entry(), nir.LIF(*(np.full(2, value) for value in (5e-3, 1.0, 0.0, 0.5, 0.7)))],
        "a threshold is above the potential",
    ),
    "negative": (lambda: [entry(), nir.LI(np.full(2, -1.0), np.ones(2), np.zeros(2))], "tau of LI 'li' must be"),
    "infinite": (lambda: [entry(), nir.LI(np.ones(2), np.array([1, np.nan]), np.zeros(2))], "r of LI 'li' must be"),
    "bias": (lambda: [nir.Affine(np.ones((2, 3)), np.ones(5)), FOREIGN["LI"]], "the bias of Affine 'affine' needs 2"),
    "inputs": (lambda: [nir.Affine(np.ones((2, 4)), np.ones(2)), FOREIGN["LI"]], "Affine 'affine': a matrix takes 4"),
    "no flatten": (
        lambda: [nir.Conv2d((1, 3), np.ones((1, 1, 1, 1)), 1, 0, 1, 1, np.ones(1)), FOREIGN["LI"]],
        "Conv2d 'conv2d' takes pictures",
    ),
    "matrices": (lambda: [nir.Linear(np.ones((2, 2, 3))), FOREIGN["LI"]], "weights are a matrix"),
    "sizes": (lambda: [entry(), nir.LI(np.ones(3), np.ones(3), np.zeros(3))], "LI 'li' has 3 neurons"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_nodes_and_parameters_without_a_counterpart_are_refused_by_name(name: str) -> None:
    make, said = REFUSED[name]
    graph = chain(*make(), typed=False)
    with pytest.raises((IncompatibleError, DataError), match=said):
        from_nir(graph, 1e-3)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("groups", 2, "groups"),
        ("dilation", (2, 2), "dilation"),
        ("padding", "same", "odd sides"),
        ("stride", (9, 9), ""),
    ],
)
def test_parameters_of_convolutions_are_honoured_or_refused(field: str, value: Any, said: str) -> None:
    given: dict[str, Any] = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    made = nir.Conv2d((5, 5), weight=np.ones((2, 2, 2, 2)), bias=np.zeros(2), **{**given, field: value})
    graph = nir.NIRGraph.from_list(nir.Input(np.array([2, 5, 5])), made, type_check=False)
    if said:
        with pytest.raises(IncompatibleError, match=said):
            from_nir(graph)
    else:
        assert from_nir(graph).outputs == 2


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (pool(2, stride=1), r"side by side, .* not so AvgPool2d 'avgpool2d' \(received: .* stride \(1, 1\)"),
        (pool(2, padding=1), r"without padding, .* 'avgpool2d' \(received: .* padding \(1, 1\)"),
        (pool((2, 6)), r"AvgPool2d 'avgpool2d': what is pooled together must fit into the picture"),
        (pool((2, 5)), ""),
    ],
)
def test_parameters_of_pooling_are_honoured_or_refused(node: Any, said: str) -> None:
    graph = nir.NIRGraph.from_list(nir.Input(np.array([2, 5, 5])), node, type_check=False)
    if said:
        with pytest.raises(IncompatibleError, match=said):
            from_nir(graph)
    else:
        assert from_nir(graph).outputs == 4


def test_two_outputs_unknown_edges_and_broken_files(tmp_path: Path) -> None:
    graph = chain(entry(), FOREIGN["LI"])
    graph.nodes["other"] = nir.Output(np.array([2]))
    graph.edges.append(("affine", "other"))
    with pytest.raises(IncompatibleError, match="one Output"):
        from_nir(graph)
    graph.edges[-1] = ("affine", "nowhere")
    with pytest.raises(DataError, match="an edge must end at a node"):
        from_nir(graph)
    (tmp_path / "broken.nir").write_text("no graph")
    with pytest.raises(DataError, match=r"broken\.nir must be a file"):
        from_nir(tmp_path / "broken.nir")
    with pytest.raises(DataError, match=r"none\.nir"):
        from_nir(tmp_path / "none.nir")


def test_euler_needs_a_step_within_the_time_constants() -> None:
    with pytest.raises(IncompatibleError, match="no time constant is shorter"):
        from_nir(chain(entry(), FOREIGN["LI"]), 6e-3, scheme="euler")
