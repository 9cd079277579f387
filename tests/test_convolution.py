"""Convolution: synapses that share weights are those of a matrix whose equal entries move together, in every part."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from credit_cases import HOLDING, PULSED, alive, data, distance, network_of

import neko_rules
from neko_rules import (
    BPTT,
    LIF,
    RTRL,
    SPSA,
    Connection,
    Convolution,
    Crossbar,
    EProp,
    Evaluator,
    KolenPollack,
    Layer,
    Manhattan,
    Network,
    PooledDense,
    Posterior,
    Rule,
    Stack,
    WeightMirror,
    on_crossbar,
)
from neko_rules.backend import get_backend
from neko_rules.chains import running
from neko_rules.errors import ArgumentError, CheckpointError, ConfigurationError, IncompatibleError
from neko_rules.experiments.run import run
from neko_rules.kernels.host import unfused
from neko_rules.layers import patches as small_products
from neko_rules.layers.patches import Patches
from neko_rules.layers.rate import TanhCell
from neko_rules.layers.shared_weights import SharedWeights
from neko_rules.probabilistic.comparisons import MonteCarloDropout
from neko_rules.rules import RULES
from neko_rules.rules.synapse import synapse_traces

FOUND = {
    "plain": Convolution((6, 7), filters=3, window=3),
    "stride": Convolution((6, 7), filters=3, window=(3, 2), stride=(2, 3)),
    "padding": Convolution((5, 4), filters=2, window=(4, 3), padding=(2, 1)),
    "channels": Convolution((4, 5), filters=3, window=2, channels=2),
    "all": Convolution((5, 6), filters=4, window=(3, 5), stride=(2, 1), channels=3, padding=(1, 2)),
    "larger than the picture": Convolution((2, 2), filters=2, window=4, padding=1),
    "pooled": Convolution((6, 8), filters=3, window=2, pool=2),
    "pooled, all": Convolution((8, 7), filters=4, window=(2, 3), stride=(1, 2), channels=3, padding=1, pool=(3, 2)),
    "pooled, dense": PooledDense((5, 7), neurons=4, pool=(2, 3), channels=3),
}
"""Convolutions of every kind, and what is one of a whole picture; of the two last, a row and a column fill no patch."""


def convolved(network: Network) -> list[Connection]:
    return [connection for connection in network.graph.connections if connection.shares]


def matrices(network: Network) -> dict[str, np.ndarray]:
    """The matrices that a network runs with, by the names of their parameters."""
    nx, values = get_backend("numpy"), network.parameters
    shared = {connection.weight: connection for connection in convolved(network)}
    return {name: shared[name].sharing.spread(nx, value) if name in shared else value for name, value in values.items()}


def gathered(network: Network, found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Derivatives by those matrices as ones by the parameters: summed by hand."""
    after = dict(found)
    for connection in convolved(network):
        assert isinstance(connection.connectivity, SharedWeights)
        numbers, shape = connection.connectivity.numbers().copy(), connection.sharing.shape
        if connection.source == connection.target:
            np.fill_diagonal(numbers, -1)
        flat = [found[connection.weight][numbers == number].sum() for number in range(shape[0] * shape[1])]
        after[connection.weight] = np.reshape(flat, shape) / connection.connectivity.pooled
    return after


def unrolled(network: Network) -> Network:
    """The same network with a weight of its own for every synapse."""
    connections = []
    for c in network.graph.connections:
        mask = network.synapses[c.weight]
        connections.append(
            Connection(c.source, c.target, c.delay, label=c.label, connectivity=mask if c.shares else "dense")
        )
    twin = Network(
        network.graph.populations,
        connections,
        network.graph.output,
        inputs=network.inputs,
        dtype="float64",
        backend=network.nx,
    )
    twin.set_parameters(matrices(network))
    return twin


# What it is.


@pytest.mark.parametrize("name", list(FOUND))
def test_it_is_the_convolution_of_deep_networks(name: str) -> None:
    torch = pytest.importorskip("torch")
    chosen, rng, nx = FOUND[name], np.random.default_rng(0), get_backend("numpy")
    weights = rng.standard_normal(chosen.weight_shape)
    x = rng.standard_normal((4, chosen.numbers().shape[0]))
    pictures = torch.tensor(x.reshape(4, chosen.channels, *chosen.shape))
    if chosen.pooled > 1:
        pictures = torch.nn.functional.avg_pool2d(pictures, chosen.pool)
    if isinstance(chosen, PooledDense):
        expected = torch.nn.functional.linear(pictures.flatten(1), torch.tensor(weights.T))
    else:
        filters = torch.tensor(weights.T.reshape(chosen.filters, chosen.channels, *chosen.window))
        expected = torch.nn.functional.conv2d(pictures, filters, stride=chosen.stride, padding=chosen.padding)
        assert expected.shape[2:] == chosen.places
    found = x @ chosen.sharing().spread(nx, weights)
    np.testing.assert_allclose(found, expected.reshape(4, -1).numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", list(FOUND))
def test_what_is_gathered_is_the_adjoint_of_what_is_spread(name: str, backend: str) -> None:
    """⟨spread(k), G⟩ = ⟨k, gathered(G)⟩, by loops and by operations."""
    chosen, rng, nx = FOUND[name], np.random.default_rng(1), get_backend(backend)
    sharing = chosen.sharing()
    weights, matrix = rng.standard_normal(chosen.weight_shape), rng.standard_normal(chosen.numbers().shape)
    found = []
    for way in (unfused, neko_rules.by_library):
        with way():
            spread = nx.to_numpy(sharing.spread(nx, nx.asarray(weights)))
            back = nx.to_numpy(sharing.gathered(nx, nx.asarray(matrix)))
        assert np.vdot(spread, matrix) == pytest.approx(np.vdot(weights, back), rel=1e-12)
        found.append((spread, back))
    spread, back = nx.to_numpy(sharing.spread(nx, nx.asarray(weights))), sharing.gathered(nx, nx.asarray(matrix))
    np.testing.assert_array_equal(spread, found[0][0])
    np.testing.assert_allclose(nx.to_numpy(back), found[0][1], rtol=1e-13)
    again = nx.to_numpy(sharing.mean(nx, sharing.spread(nx, nx.asarray(weights))))
    np.testing.assert_allclose(again, weights * np.minimum(sharing.synapses, 1), rtol=1e-13)


@pytest.mark.parametrize("pool", [1, 2])
def test_the_gradient_is_autograd_s_of_a_network_written_with_convolutions(pool: int) -> None:
    torch = pytest.importorskip("torch")
    from independent_network import Spike

    first = Convolution((6, 6), filters=3, window=3, stride=2 // pool, padding=1)
    second = Convolution(first.places, filters=4, window=2, channels=first.filters, pool=pool)
    third = PooledDense(second.places, neurons=3, pool=pool, channels=second.filters)
    rng = np.random.default_rng(2)
    x, y = 3 * rng.random((5, 9, 36)), rng.integers(0, 3, 5)
    cell = {"name": "lif", "membrane_decay": 0.9, "threshold": 1.0}
    strong = {"name": "scaled_normal", "gain": 1.5}
    layers = [Layer(cell, connectivity=each, recurrent=False, initializer=strong) for each in (first, second)]
    network = Stack(
        layers, 3, inputs=36, dtype="float64", readout_decay=0.8, readout="mean", seed=1, readout_connectivity=third
    )
    model = Evaluator(network)
    alive(model, x)
    leaves = {name: torch.tensor(value, requires_grad=True) for name, value in network.parameters.items()}

    def filters(name: str, of: Convolution) -> Any:
        return leaves[name].T.reshape(of.filters, of.channels, *of.window)

    pictures = torch.tensor(x)
    lower = torch.zeros(5, 3, *first.places, dtype=torch.float64)
    upper = torch.zeros(5, 4, 2, 2, dtype=torch.float64)
    z_lower, z_upper, out, total = 0 * lower, 0 * upper, 0.0, 0.0
    for t in range(9):
        given = torch.nn.functional.conv2d(
            pictures[:, t].reshape(5, 1, 6, 6), filters("hidden0.input.weight", first), stride=2 // pool, padding=1
        )
        bias = leaves["hidden0.bias"].reshape(3, *first.places)
        lower = 0.9 * lower + given + bias - z_lower.detach()
        z_lower = Spike.apply(lower - 1)
        given = torch.nn.functional.avg_pool2d(z_lower, pool)
        given = torch.nn.functional.conv2d(given, filters("hidden1.input.weight", second))
        upper = 0.9 * upper + given + leaves["hidden1.bias"].reshape(4, 2, 2) - z_upper.detach()
        z_upper = Spike.apply(upper - 1)
        given = torch.nn.functional.avg_pool2d(z_upper, pool)
        out = 0.8 * out + given.reshape(5, -1) @ leaves["readout.input.weight"] + leaves["readout.bias"]
        total = total + out / 9
    torch.nn.functional.cross_entropy(total, torch.tensor(y)).backward()
    expected = {name: leaf.grad.numpy() for name, leaf in leaves.items()}
    assert distance(BPTT(model).gradients(x, y), expected) < 1e-11


def test_the_gradient_of_a_smooth_network_is_the_difference_quotient() -> None:
    x, y = data(batch=3, steps=5)
    cell = TanhCell(membrane_decay=0.6)
    lateral = Convolution((2, 2), filters=2, window=3, channels=2, padding=1)
    layer = Layer(cell, connectivity=Convolution((2, 2), filters=2, window=1), recurrent_connectivity=lateral)
    network = Stack([layer], 3, inputs=4, dtype="float64", seed=1)
    model = Evaluator(network)
    found, values, h = BPTT(model).gradients(x, y), network.parameters, 1e-5
    for name in ("hidden.input.weight", "hidden.recurrent.weight"):
        for place in np.ndindex(values[name].shape):
            losses = []
            for sign in (1, -1):
                moved = values[name].copy()
                moved[place] += sign * h
                network.set_parameters({name: moved})
                losses.append(model.evaluate(x, y)["loss"])
            network.set_parameters(values)
            assert found[name][place] == pytest.approx((losses[0] - losses[1]) / (2 * h), rel=1e-6, abs=1e-9)


def test_a_neuron_does_not_reach_itself_through_a_convolution() -> None:
    """Unless it may: among themselves, the middle of a window is the neuron itself, of the same filter."""
    for autapses in (False, True):
        lateral = Convolution((3, 3), filters=1, window=3, padding=1)
        connection = Connection("a", "a", 1, autapses=autapses, connectivity=lateral)
        assert connection.synapses(9, 9).diagonal().all() == autapses
        assert connection.sharing.synapses.ravel()[4] == 9 * autapses
        found = connection.sharing.spread(get_backend("numpy"), np.ones((9, 1)))
        assert np.array_equal(found, connection.synapses(9, 9))


@pytest.mark.parametrize("name", list(FOUND))
@pytest.mark.parametrize("pieces", [1, 3])
def test_products_of_patches_are_those_of_the_matrix(
    name: str, pieces: int, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, rng, nx = FOUND[name], np.random.default_rng(3), get_backend(backend)
    patches, (sources, targets) = chosen.patches, chosen.numbers().shape
    monkeypatch.setattr(small_products, "_TOGETHER", 10**9 if pieces == 1 else 1)
    monkeypatch.setattr(small_products, "_PIECES", pieces)
    sent, delta = rng.standard_normal((7, sources)), rng.standard_normal((7, targets))
    weights = rng.standard_normal(chosen.weight_shape)
    matrix = chosen.sharing().spread(get_backend("numpy"), weights)

    def run(method: Any, *given: np.ndarray) -> np.ndarray:
        return nx.to_numpy(method(nx, *map(nx.asarray, given)))

    expected = chosen.sharing().gathered(get_backend("numpy"), sent.T @ delta)
    for engine in (nullcontext, unfused):
        with engine():
            np.testing.assert_allclose(run(patches.product, sent, weights), sent @ matrix, rtol=1e-11, atol=1e-12)
            np.testing.assert_allclose(run(patches.back, delta, weights), delta @ matrix.T, rtol=1e-11, atol=1e-12)
            np.testing.assert_allclose(run(patches.gradient, sent, delta), expected, rtol=1e-11, atol=1e-12)


def test_patches_pay_where_windows_are_small() -> None:
    first = Convolution((28, 28), filters=12, window=5, stride=2).patches
    assert first.pay
    assert not Convolution((8, 8), filters=12, window=7).patches.pay
    assert Convolution((24, 24), filters=32, window=5, stride=2, channels=12).patches.pay_back
    assert not Convolution((8, 8), filters=12, window=7).patches.pay_back
    few, many = 0.005, 0.2
    assert first.beat_events(many)
    assert not first.beat_events(few)
    # What is sent is read once to be pooled, and windows are fewer.
    assert Convolution((24, 24), filters=32, window=5, channels=12, pool=2).patches.pay
    assert not PooledDense((24, 24), neurons=10).patches.pay
    lateral = Convolution((3, 3), filters=1, window=3, padding=1)
    assert Connection("a", "a", 1, connectivity=lateral).patches is None
    assert Connection("a", "a", 1, autapses=True, connectivity=lateral).patches is not None


# Every rule.


@pytest.mark.parametrize(
    ("rule", "pool"),
    [*((rule, 1) for rule in ("bptt", "eprop", "feedback_alignment", "sign_symmetric", "rtrl", "ottt")), ("bptt", 2)],
)
def test_rules_by_patches_are_those_by_matrices(
    rule: str, pool: int, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = data(batch=3, steps=8)
    first = Convolution((2, 2), filters=2, window=2, padding=1)
    second = Convolution((3, 3), filters=3, window=2, channels=2, pool=(1, pool), padding=(0, pool - 1))
    calls: list[str] = []

    def told(name: str) -> Callable[..., Any]:
        method = vars(Patches)[name]
        return lambda *given: (calls.append(name), method(*given))[1]

    for name in ("product", "back", "gradient"):
        monkeypatch.setattr(Patches, name, told(name))
    found = []
    for pays in (True, False):
        calls.clear()
        for name, value in (("pay", pays), ("pay_back", pays), ("beat_events", lambda *_, pays=pays: pays)):
            monkeypatch.setattr(Patches, name, value)
        layers = [Layer("lif", connectivity=each, recurrent=False) for each in (first, second)]
        network = Stack(layers, 3, inputs=4, backend=backend, dtype="float64", seed=4)
        found.append(RULES[rule](Evaluator(network)).gradients(x, y))
        assert ("product" in calls) == pays
        # Forward in time they meet step by step; signs are of the matrix.
        if rule in ("bptt", "eprop", "feedback_alignment"):
            assert set(calls) == ({"product", "back", "gradient"} if pays else set())
    for name, value in found[0].items():
        np.testing.assert_allclose(value, found[1][name], rtol=1e-9, atol=1e-12, err_msg=name)


NOT_SUMMED = ("weight_perturbation", *PULSED)
"""The rules that draw for every weight, or make pulses of its gradient."""


@pytest.mark.parametrize("name", ["convolution", "pooling"])
@pytest.mark.parametrize("rule", [name for name in RULES if name not in NOT_SUMMED])
def test_gradients_are_those_of_every_synapse_summed(rule: str, name: str) -> None:
    x, y = data(batch=3, steps=8)
    network = network_of(name)
    alive(Evaluator(network), x)
    try:
        made = [RULES[rule](Evaluator(each)) for each in (network, unrolled(network))]
    except IncompatibleError:
        first = Convolution((2, 2), filters=2, window=2, padding=1)
        last = PooledDense(first.places, 3, channels=first.filters) if name == "pooling" else "dense"
        layers = [Layer("lif", connectivity=first, recurrent=False)]
        network = Stack(layers, 3, inputs=4, dtype="float64", seed=2, readout_connectivity=last)
        made = [RULES[rule](Evaluator(each)) for each in (network, unrolled(network))]
    feedback = getattr(made[0], "feedback", {})
    if feedback:
        numpy = get_backend("numpy")
        shared = {connection.weight: connection.sharing for connection in convolved(network)}
        whole = {key: shared[key].spread(numpy, each) if key in shared else each for key, each in feedback.items()}
        made[1].load_state({**made[1].state(), **{f"feedback/{key}": each for key, each in whole.items()}})
    found, by_synapse = (each.gradients(x, y) for each in made)
    expected = gathered(network, by_synapse)
    assert max(np.abs(value).max() for value in expected.values()) > 1e-8
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-9, atol=1e-12, err_msg=key)


STEPPED: dict[str, Callable[[Evaluator], Rule]] = {
    "BPTT": BPTT,
    "BPTT, decay, clipping": lambda m: BPTT(m, weight_decay=1e-2, clipping={"name": "global_norm", "limit": 0.5}),
    "e-prop, online": lambda m: EProp(m, online=True),
    "e-prop, every 4": lambda m: EProp(m, online=4),
    "Kolen-Pollack": KolenPollack,
    "weight mirror": WeightMirror,
    "RTRL, online": lambda m: RTRL(m, online=True),
    "SPSA": SPSA,
}


@pytest.mark.parametrize("name", ["convolution", "pooling"])
@pytest.mark.parametrize(
    ("rule", "backend"), [*((rule, "numpy") for rule in STEPPED), ("BPTT", "torch"), ("e-prop, every 4", "jax")]
)
def test_steps_by_loops_are_those_by_operations(
    rule: str, backend: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several, since those at hand, which convolutions have none of, come after the first; and an evaluation."""
    monkeypatch.setattr(running, "WORTHWHILE", 0)
    x, y = data(batch=5, steps=12)

    def stepped() -> tuple[dict[str, float], dict[str, np.ndarray]]:
        made = STEPPED[rule](Evaluator(network_of(name, backend)))
        for _ in range(4):
            made.step(x, y)
        return made.model.evaluate(x, y), made.state()

    figures, found = stepped()
    with neko_rules.by_library():
        expected_figures, expected = stepped()
    assert figures == pytest.approx(expected_figures, rel=1e-9)
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-8, atol=1e-11, err_msg=key)


def test_one_step_moves_a_weight_by_the_gradient_of_all_its_synapses() -> None:
    """w ← w - η Σ dE/dW, and not its mean: as a convolution of a deep network is trained."""
    x, y = data(batch=3, steps=8)
    network = network_of("convolution")
    rule = BPTT(Evaluator(network), optimizer={"name": "sgd", "learning_rate": 0.1})
    before, found = network.parameters, rule.gradients(x, y)
    rule.step(x, y)
    for name, value in network.parameters.items():
        np.testing.assert_allclose(value, before[name] - 0.1 * found[name], rtol=1e-12, atol=1e-15)


def test_clipping_sees_the_norm_of_the_weights_there_are() -> None:
    x, y = data(batch=3, steps=8)
    network = network_of("convolution")
    rule = BPTT(Evaluator(network), optimizer="naive", clipping={"name": "global_norm", "limit": 1e-3})
    before = network.parameters
    rule.step(x, y)
    moved = np.concatenate([(network.parameters[name] - value).ravel() for name, value in before.items()])
    assert np.linalg.norm(moved) == pytest.approx(1e-3, rel=1e-9)


@pytest.mark.parametrize(("kind", "shape"), [("convolution", (8, 3)), ("pooling", (4, 4))])
def test_feedback_has_the_shape_of_what_it_stands_for_and_comes_to_it(
    kind: str, shape: tuple[int, int], backend: str
) -> None:
    x, y = data(batch=3, steps=8)
    name = "hidden1.input.weight"
    for made, steps in ((lambda m: KolenPollack(m, feedback_decay=50.0), 60), (WeightMirror, 300)):
        network = network_of(kind, backend)
        rule = made(Evaluator(network))

        def apart(rule: Any = rule, network: Network = network) -> float:
            return float(np.linalg.norm(rule.feedback[name] - network.parameters[name]))

        assert rule.feedback[name].shape == shape
        before = apart()
        for _ in range(steps):
            rule.step(x, y)
        assert apart() < 0.3 * before


def test_a_stream_is_the_sequence(backend: str) -> None:
    x, y = data(batch=1, steps=12)
    networks = [network_of("convolution", backend) for _ in range(2)]
    EProp(Evaluator(networks[0]), online=True, optimizer="sgd").step(x, np.full((1, 12), y[0]))
    learner = EProp(Evaluator(networks[1]), online=True, optimizer={"name": "sgd", "learning_rate": 1e-2 / 12}).stream()
    for step in x[0]:
        learner.observe(step, int(y[0]))
    for name, value in networks[0].parameters.items():
        np.testing.assert_allclose(networks[1].parameters[name], value, rtol=1e-9, atol=1e-12, err_msg=name)


def test_a_synapse_of_its_own_has_a_trace() -> None:
    """Of which the gradient of a weight is the sum over the synapses that share it."""
    x, y = data(batch=2, steps=9)
    first = Convolution((2, 2), filters=2, window=2, padding=1)
    network = Stack([Layer("lif", connectivity=first, recurrent=False)], 3, inputs=4, dtype="float64", seed=2)
    rule, name = EProp(Evaluator(network)), "hidden.input.weight"
    numbers = first.numbers()
    total = sum(synapse_traces(rule, x, y, name, *place).gradient for place in np.argwhere(numbers == 5))
    assert total == pytest.approx(rule.gradients(x, y)[name].ravel()[5], rel=1e-11)


# Samplers and devices.


def test_a_posterior_is_of_the_weights_and_not_of_the_synapses() -> None:
    network = network_of("convolution")
    posterior = Posterior(Evaluator(network))
    assert posterior.dimension == sum(value.size for value in network.parameters.values())
    assert len(posterior.neurons("readout")) == 3
    with pytest.raises(ArgumentError, match="columns"):
        posterior.neurons("hidden1")
    fixed = Posterior(Evaluator(network), fixed=["hidden1.bias"])
    assert len(fixed.neurons("hidden1")) == 3, "those of a filter are one"


def test_neurons_that_share_weights_cannot_be_silenced_by_them() -> None:
    x, y = data()
    with pytest.raises(IncompatibleError, match=r"hidden0\.recurrent\.weight, which synapses share"):
        MonteCarloDropout(EProp(Evaluator(network_of("convolution"))))
    first = Convolution((2, 2), filters=2, window=2, padding=1)
    network = Stack([Layer("lif", connectivity=first, recurrent=False)], 3, inputs=4, seed=2)
    assert np.isfinite(MonteCarloDropout(EProp(Evaluator(network))).step(x, y)["loss"])


@pytest.mark.parametrize(("kind", "shape"), [("convolution", (8, 3)), ("pooling", (4, 4))])
def test_a_crossbar_holds_the_weights_and_not_the_synapses(kind: str, shape: tuple[int, int]) -> None:
    """Every window is read by the same devices, whose noise is then that of all its places."""
    network, (x, y) = network_of(kind), data()
    crossbar = Crossbar(device={"name": "idealized", "read_noise": 0.1}, w_max=9.0)
    shown = on_crossbar(network, crossbar)
    assert {name: value.shape for name, value in shown.parameters.items()} == {
        name: value.shape for name, value in network.parameters.items()
    }
    assert np.any(shown.parameters["hidden0.input.weight"] != network.parameters["hidden0.input.weight"])
    rule = Manhattan(Evaluator(network), **HOLDING["tiki_taka"])
    before = network.parameters["hidden1.input.weight"]
    rule.step(x, y)
    assert network.parameters["hidden1.input.weight"].shape == shape
    assert np.any(network.parameters["hidden1.input.weight"] != before)


# Networks that are copied, moved, saved and read.


@pytest.mark.parametrize("kind", ["convolution", "pooling"])
def test_copies_share_alike(kind: str, tmp_path: Path) -> None:
    network = network_of(kind)
    network.save(tmp_path / "weights.safetensors")
    twin = network_of(kind)
    twin.set_parameters({name: 0 * value for name, value in network.parameters.items()})
    twin.load(tmp_path / "weights.safetensors")
    x, _ = data()
    expected = Evaluator(network).predict(x)
    for other in (network.clone(), network.on("torch"), pickle.loads(pickle.dumps(network)), twin):
        np.testing.assert_allclose(Evaluator(other).predict(x), expected, rtol=1e-12, atol=1e-12)


def test_weights_of_another_convolution_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    Stack([Layer("lif", connectivity=Convolution((4, 4), filters=2, window=2))], 2, inputs=16).save(path)
    other = Stack([Layer("lif", connectivity=Convolution((4, 4), filters=2, window=3, padding=1))], 2, inputs=16)
    with pytest.raises((ArgumentError, CheckpointError), match="shape"):
        other.load(path)


@dataclass(frozen=True)
class Symmetric(SharedWeights):
    """A user's own: w_ij = w_ji."""

    size: int

    @property
    def weight_shape(self) -> tuple[int, int]:
        return self.size * (self.size + 1) // 2, 1

    def numbers(self) -> np.ndarray:
        found = np.zeros((self.size, self.size), int)
        upper = np.triu_indices(self.size)
        found[upper] = np.arange(len(upper[0]))
        return np.maximum(found, found.T)


def test_weights_that_a_user_shares(backend: str) -> None:
    x, y = data(batch=3, steps=8)
    layer = Layer("alif", 6, recurrent_connectivity=Symmetric(6))
    network = Stack([layer], 3, inputs=4, backend=backend, dtype="float64", seed=3)
    rule = EProp(Evaluator(network), online=4)
    for _ in range(2):
        rule.step(x, y)
    matrix = matrices(network)["hidden.recurrent.weight"]
    assert network.parameters["hidden.recurrent.weight"].shape == (21, 1)
    assert np.array_equal(matrix, matrix.T)
    assert not np.count_nonzero(matrix.diagonal())
    assert np.count_nonzero(matrix) == 30


# What is refused.


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Convolution((4, 4), filters=2), "a window must fit into the picture"),
        (lambda: Convolution((4, 4), filters=0, window=2), "filters"),
        (lambda: Convolution((4, 4), filters=2, window=2, padding=-1), "padding"),
        (lambda: Layer("lif"), "a layer must be told its size"),
        (lambda: Layer("lif", connectivity=0.5), "a layer must be told its size"),
        (lambda: LIF(18, 2, inputs=17, connectivity=Convolution((4, 4), 2, 2)), "leads from 16 to 18 neurons"),
        (lambda: LIF(17, 2, inputs=16, connectivity=Convolution((4, 4), 2, 2)), "leads from 16 to 18 neurons"),
    ],
)
def test_what_is_no_convolution_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make()


CONFIG = """
name: convolution
backend: numpy
data: {name: delayed_xor, train_examples: 32, test_examples: 16}
model:
  name: stack
  layers:
    - {cell: lif, recurrent: false, connectivity: {name: convolution, shape: [5, 8], window: 3, filters: 2}}
    - {cell: alif, size: 12}
  outputs: 2
  readout_connectivity: {name: pooled_dense, shape: [3, 4], neurons: 2}
rule: {name: eprop}
train: {epochs: 1, batch_size: 16}
"""


def test_a_run_of_a_convolution(tmp_path: Path) -> None:
    path = tmp_path / "convolution.yaml"
    path.write_text(CONFIG)
    run(path, out=tmp_path / "run", progress=False)
    first = Convolution((5, 8), filters=2, window=3)
    layers = [Layer("lif", connectivity=first, recurrent=False), Layer("alif", 12)]
    network = Stack(layers, 2, inputs=40, readout_connectivity=PooledDense((3, 4), neurons=2))
    network.load(tmp_path / "run" / "weights.safetensors")
    assert network.parameters["hidden0.input.weight"].shape == (9, 2)
    assert network.parameters["readout.input.weight"].shape == (2, 2)


@pytest.mark.parametrize(
    "change", ["shape: [5, 9]", "shape: [5, 8], pool: 3", "shape: [2, 2]", "shape: [5, 8], strid: 2"]
)
def test_a_configuration_with_no_convolution_is_refused(change: str, tmp_path: Path) -> None:
    (tmp_path / "convolution.yaml").write_text(CONFIG.replace("shape: [5, 8]", change))
    with pytest.raises(ConfigurationError):
        run(tmp_path / "convolution.yaml", out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
