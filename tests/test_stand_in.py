"""NumPy's loops that take the steps of a rule on another library give the library's numbers, and pass nothing by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from neko_rules import ALIF, BPTT, FPTT, LIF, OTTT, EProp, Evaluator, GradientComparison
from neko_rules.backend import get_backend, is_installed
from neko_rules.errors import NonFiniteError
from neko_rules.kernels.host import by_library, lends, unfused
from neko_rules.losses import CategoricalCrossentropy
from neko_rules.optional import installed
from neko_rules.rules.learning_rule import LearningRule
from neko_rules.rules.rule import Rule
from neko_rules.rules.stand_in import StandIn
from neko_rules.testing.verification import verify_backends

pytestmark = pytest.mark.skipif(not installed("numba"), reason="loops are compiled by Numba")

STEPS, EXAMPLES, FEATURES, CLASSES = 24, 16, 12, 3

Batch = tuple[np.ndarray, np.ndarray]


@pytest.fixture(params=["jax", "tensorflow", "torch"])
def backend(request: pytest.FixtureRequest) -> str:
    if not is_installed(request.param):
        pytest.skip(f"{request.param} is not installed")
    return str(request.param)


@pytest.fixture
def batch() -> Batch:
    random = np.random.default_rng(0)
    x = 3.0 * (random.random((EXAMPLES, STEPS, FEATURES)) < 0.3)
    return x, random.integers(0, CLASSES, EXAMPLES)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What stand-ins were asked for, by name of the method."""
    asked: list[str] = []
    for name in ("stepped", "gradients"):
        own: Callable[..., Any] = getattr(StandIn, name)

        def counted(self: StandIn, *given: Any, own: Callable[..., Any] = own, name: str = name) -> Any:
            asked.append(name)
            return own(self, *given)

        monkeypatch.setattr(StandIn, name, counted)
    return asked


def model(backend: str, cell: Any = ALIF, **options: Any) -> Evaluator:
    return Evaluator(cell(32, CLASSES, backend=backend, dtype="float64", **options), metrics=["accuracy"])


def close(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    """Equal to rounding, of which a step leaves some."""
    assert set(one) == set(other)
    for name, value in one.items():
        np.testing.assert_allclose(value, other[name], rtol=1e-9, atol=1e-11 * max(np.abs(value).max(), 1e-3))


CLIPPED = {"name": "norm", "limit": 0.1}

RULES: dict[str, Callable[[Evaluator], Rule]] = {
    "eprop": lambda m: EProp(m),
    "eprop, clipped, decaying": lambda m: EProp(m, clipping=CLIPPED, weight_decay=0.1, optimizer="sgd"),
    "eprop, rate factors": lambda m: EProp(m, rate_factors={"hidden.input": 0, "readout": 2}),
    "eprop, adaptive feedback": lambda m: EProp(m, mode="adaptive"),
    "eprop, penalised": lambda m: EProp(m, regularizers=["firing_rate"]),
    "eprop, penalised online": lambda m: EProp(m, regularizers=["firing_rate"], online=7),
    "eprop, membranes penalised": lambda m: EProp(m, regularizers=["membrane_bounds"]),
    "truncated bptt, penalised": lambda m: BPTT(m, regularizers=["firing_rate"], window=7),
    "bptt": lambda m: BPTT(m),
    "bptt, windows": lambda m: BPTT(m, window=7),
    "eprop, online": lambda m: EProp(m, online=True),
    "eprop, online every 5": lambda m: EProp(m, online=5),
    "ottt, online every 5": lambda m: OTTT(m, online=5),
    "ottt, online": lambda m: OTTT(m, online=True),
}


@pytest.mark.parametrize("name", RULES)
def test_steps_are_those_that_the_library_takes(name: str, backend: str, batch: Batch, taken: list[str]) -> None:
    """Equation: gradient, figures and state after every step are the library's own, in float64."""
    cell = LIF if "online" in name else ALIF
    rule, other = RULES[name](model(backend, cell)), RULES[name](model(backend, cell))
    for number in range(3):
        found, gradients = rule.observed_step(*batch)
        assert taken.count("stepped") == number + 1
        with by_library():
            wanted, expected = other.observed_step(*batch)
        assert taken.count("stepped") == number + 1
        close(gradients, expected)
        assert found == pytest.approx(wanted, rel=1e-9)
        close(rule.state(), other.state())
        assert all(rule.nx.is_tensor(value) for value in rule.model.network.values.values())
    close(rule.gradients(*batch), other.gradients(*batch))
    assert taken.count("gradients") == 2


def test_what_is_set_between_steps_is_seen(backend: str, batch: Batch, taken: list[str]) -> None:
    """Weights, states and clones of a rule are its own, whoever took the step before."""
    rule = EProp(model(backend))
    rule.step(*batch)
    state, weights = rule.state(), rule.model.network.parameters
    first = rule.step(*batch)
    rule.load_state(state)
    assert rule.step(*batch) == pytest.approx(first)
    rule.load_state(state)
    twin = rule.clone()
    twin.step(*batch)
    assert rule.steps == 1
    close(rule.model.network.parameters, weights)
    zero = {name: np.zeros_like(value) for name, value in weights.items()}
    rule.model.network.set_parameters(zero)
    assert rule.step(*batch)["loss"] == pytest.approx(np.log(CLASSES))
    assert taken == ["stepped"] * 5


def test_two_rules_share_a_model(backend: str, batch: Batch, taken: list[str]) -> None:
    """A rule goes on from the weights that another one left on the same model."""
    shared = model(backend)
    one, other = EProp(shared, optimizer="sgd"), BPTT(shared, optimizer="sgd")
    apart = model(backend)
    with by_library():
        wanted = [rule.step(*batch) for rule in (EProp(apart, optimizer="sgd"), BPTT(apart, optimizer="sgd"))]
    assert [rule.step(*batch)["loss"] for rule in (one, other)] == pytest.approx([each["loss"] for each in wanted])
    close(shared.network.parameters, apart.network.parameters)
    assert taken == ["stepped"] * 2


def test_library_and_stand_in_take_turns(backend: str, batch: Batch, taken: list[str]) -> None:
    """A step by the library goes on from one of the stand-in, with the optimiser's memory, and the other way round."""
    mixed, plain = EProp(model(backend)), EProp(model(backend))
    for number in range(4):
        with by_library():
            plain.step(*batch)
        if number % 2:
            with by_library():
                mixed.step(*batch)
        else:
            mixed.step(*batch)
    close(mixed.state(), plain.state())
    assert taken == ["stepped"] * 2


def test_what_a_rule_is_made_of_may_be_replaced(backend: str, batch: Batch, taken: list[str]) -> None:
    """Another optimiser, regulariser or metric counts from the next step on."""
    rule = EProp(model(backend), optimizer="sgd")
    rule.step(*batch)
    rule.optimizer = type(rule.optimizer)(learning_rate=0.0)
    before = rule.model.network.parameters
    rule.step(*batch)
    close(rule.model.network.parameters, before)
    rule.model.metrics = ()
    assert set(rule.step(*batch)) == {"loss"}
    assert taken == ["stepped"] * 3


def test_batches_of_no_use_go_to_the_library(backend: str, batch: Batch, taken: list[str]) -> None:
    """Negative control: where loops are switched off, or no chain is worth compiling, or none is there."""
    rule, whole = EProp(model(backend)), EProp(model(backend, LIF), online=True)
    rule.step(batch[0][:1, :2], batch[1][:1])
    with unfused():
        rule.step(*batch)
    FPTT(model(backend, LIF), clipping={"name": "norm", "limit": 0.1}).step(*batch)
    LearningRule(model(backend), temporal="neuron", evaluation="traces").step(*batch)
    LearningRule(model(backend), temporal="presynaptic", spatial="modulator").step(*batch)
    assert not taken
    whole.step(*batch)
    assert taken == ["stepped"]


@pytest.mark.parametrize("faster", [True, False])
def test_a_library_with_large_products_of_its_own_is_asked(
    faster: bool, batch: Batch, taken: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between wide layers PyTorch's products may take less time than those in a chain."""
    pytest.importorskip("torch")
    monkeypatch.setattr(
        "neko_rules.rules.chained.times_as_long", lambda nx: 0.5 if nx.name == "torch" and faster else 1.0
    )
    network = ALIF([80, 80], CLASSES, backend="torch", dtype="float64")
    EProp(Evaluator(network)).step(*batch)
    assert taken == ([] if faster else ["stepped"])


def test_where_no_chain_can_be_made_the_library_computes(
    backend: str, batch: Batch, taken: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it computes by itself: how a batch is gone through depends on no batch before.

    Bit for bit where loops do nothing else for it; of PyTorch they take a population's steps.
    """
    monkeypatch.setattr("neko_rules.rules.chained._made", lambda *_: None)
    rule, plain = EProp(model(backend)), EProp(model(backend))
    for _ in range(2):
        found = rule.step(*batch)
        with by_library():
            assert found == pytest.approx(plain.step(*batch), rel=1e-12 if backend == "torch" else 0)
    state = plain.state()
    for name, value in rule.state().items():
        np.testing.assert_allclose(value, state[name], rtol=0, atol=1e-10 if backend == "torch" else 0)
    assert taken == ["stepped"]


def test_what_a_user_wrote_goes_to_the_library(backend: str, batch: Batch, taken: list[str]) -> None:
    """A rule or loss of a user's may be written for the one library that it is used with."""

    class Mine(EProp):
        def _limited(self, found: Any) -> Any:
            assert all(map(self.nx.is_tensor, found.values()))
            return super()._limited(found)

    class MyLoss(CategoricalCrossentropy):
        pass

    Mine(model(backend)).step(*batch)
    EProp(Evaluator(ALIF(32, CLASSES, backend=backend), loss=MyLoss())).step(*batch)
    assert not taken


def test_backends_that_are_compared_compute_themselves(batch: Batch, taken: list[str]) -> None:
    """Where numbers of several backends are held against each other, no loop takes the steps of two of them."""
    pytest.importorskip("jax")
    make = lambda backend, dtype: EProp(Evaluator(ALIF(32, CLASSES, backend=backend, dtype=dtype)))  # noqa: E731
    assert verify_backends(make, [batch], ["numpy", "jax"], float32=False).agree
    both = GradientComparison(EProp(model("jax")), {"numpy": EProp(model("numpy"))})
    both.train(*batch, epochs=1, batch_size=EXAMPLES)
    assert not taken
    alone = GradientComparison(EProp(model("jax")), {"bptt": BPTT(model("jax"))})
    alone.train(*batch, epochs=1, batch_size=EXAMPLES)
    assert taken == ["stepped"] * 2


def test_changed_backends_are_not_passed_by(batch: Batch, taken: list[str]) -> None:
    """Whoever changes an operation of a backend sees it used."""
    pytest.importorskip("jax")

    class Mine(type(get_backend("jax"))):  # type: ignore[misc]
        pass

    assert lends(get_backend("jax"))
    assert not lends(Mine())
    EProp(Evaluator(ALIF(32, CLASSES, backend=Mine()))).step(*batch)
    assert not taken


def test_a_step_that_fails_changes_nothing(backend: str, batch: Batch) -> None:
    """Parameters and steps keep their last good values where an update would not be finite."""
    rule = EProp(model(backend), optimizer="sgd")
    rule.step(*batch)
    rule.model.network.set_parameters({"readout.input.weight": np.full((32, CLASSES), 1.5e308)})
    before = rule.state()
    with pytest.raises(NonFiniteError):
        rule.step(*batch)
    close(rule.state(), before)


def test_networks_move_to_another_backend(backend: str, batch: Batch) -> None:
    """A network on another backend has the same weights and constants, and is trained on its own."""
    here = ALIF(32, CLASSES, inputs=FEATURES, dtype="float64", learnable=["beta"])
    there = here.on(backend)
    assert (there.backend, here.backend) == (backend, "numpy")
    close(there.parameters, here.parameters)
    np.testing.assert_allclose(Evaluator(there).predict(batch[0]), Evaluator(here).predict(batch[0]), rtol=1e-9)
    there.set_parameters({"hidden.input.weight": np.zeros((FEATURES, 32))})
    assert np.abs(here.parameters["hidden.input.weight"]).max() > 0
