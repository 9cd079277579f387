"""What a user writes counts on every library, in every kind of step, and is told from what is like it."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from neko_rules import ALIF, BPTT, FPTT, LIF, STDP, EProp, Evaluator, Layer, Manhattan, PPProp, Rule, Stack, Trainer
from neko_rules.chains import running
from neko_rules.clipping import ClipGlobalNorm
from neko_rules.errors import ArgumentError, DataError, IncompatibleError
from neko_rules.kernels.host import unfused
from neko_rules.layers.integrate_and_fire import LIFCell
from neko_rules.losses import CategoricalCrossentropy
from neko_rules.optimizers import SGD, Adam
from neko_rules.regularizers import FiringRate
from neko_rules.surrogates import FastSigmoid

FEATURES, CLASSES = 5, 3
DOUBLE: dict[str, Any] = {"inputs": FEATURES, "dtype": "float64", "threshold": 0.3}
SCHEDULES: list[dict[str, Any]] = [{}, {"online": 2}, {"window": 4}]


@pytest.fixture(autouse=True)
def chains(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every batch is worth a chain."""
    monkeypatch.setattr(running, "WORTHWHILE", 0)


def data(examples: int = 16, steps: int = 12) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.standard_normal((examples, steps, FEATURES)), random.integers(0, CLASSES, examples)


def after_steps(rule: Rule, steps: int = 3) -> dict[str, np.ndarray]:
    for _ in range(steps):
        rule.step(*data())
    found: dict[str, np.ndarray] = rule.model.network.parameters
    return found


def apart(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    return max(float(np.abs(one[name] - other[name]).max()) for name in other)


class Positive(LIF):
    """A network of a user's whose weights are never negative."""

    def within_bounds(self, parameters: Any) -> Any:
        found = super().within_bounds(parameters)
        return {n: self.nx.maximum(v, 0.0) if n.endswith("weight") else v for n, v in found.items()}


class Halved(LIF):
    """One that runs with half of its weights."""

    def seen(self, parameters: Any) -> Any:
        return {name: 0.5 * value for name, value in super().seen(parameters).items()}


class Centred(SGD):
    """An optimiser of a user's that looks at whole gradients."""

    def applied(self, nx: Any, gradients: Any, *given: Any, **options: Any) -> Any:
        centred = {name: g - nx.mean(g) for name, g in gradients.items()}
        return super().applied(nx, centred, *given, **options)


class Updating(SGD):
    """The same by what is documented as the interface."""

    def update(self, nx: Any, gradients: Any, *given: Any) -> Any:
        return super().update(nx, {name: g - nx.mean(g) for name, g in gradients.items()}, *given)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_bounds_of_a_networks_own(schedule: dict[str, Any], backend: str) -> None:
    rule = EProp(Evaluator(Positive(8, CLASSES, backend=backend, **DOUBLE)), optimizer=SGD(0.1), **schedule)
    for _ in range(4):
        rule.step(*data())
        for name, value in rule.model.network.parameters.items():
            assert value.min() >= 0 or not name.endswith("weight"), name
    plain = EProp(Evaluator(LIF(8, CLASSES, backend=backend, **DOUBLE)), optimizer=SGD(0.1), **schedule)
    assert after_steps(plain)["hidden.input.weight"].min() < 0


def test_weights_that_a_network_sees_otherwise(backend: str) -> None:
    def trained(kind: type[LIF], **options: Any) -> dict[str, np.ndarray]:
        return after_steps(EProp(Evaluator(kind(8, CLASSES, **options, **DOUBLE)), optimizer=SGD(0.1)))

    with unfused():
        wanted = trained(Halved)
    found = trained(Halved, backend=backend)
    assert apart(found, wanted) < 1e-10
    assert apart(found, trained(LIF)) > 1e-3


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@pytest.mark.parametrize("optimizer", [Centred(0.1), Updating(0.1)], ids=["applied", "update"])
def test_optimizers_of_whole_gradients(optimizer: SGD, schedule: dict[str, Any], backend: str) -> None:
    def trained(given: SGD, **options: Any) -> dict[str, np.ndarray]:
        return after_steps(EProp(Evaluator(LIF(8, CLASSES, **options, **DOUBLE)), optimizer=given, **schedule))

    with unfused():
        wanted = trained(optimizer)
    found = trained(optimizer, backend=backend)
    assert apart(found, wanted) < 1e-10
    assert apart(found, trained(SGD(0.1))) > 1e-6


# None of these is a dataclass itself: what it has beside the fields of its base says what it is.


class ScaledSGD(SGD):
    """Steps so many times as long."""

    def __init__(self, factor: float) -> None:
        super().__init__(0.1)
        object.__setattr__(self, "factor", factor)

    def _change(self, nx: Any, g: Any, memory: Any, p: Any, rate: Any, t: Any) -> Any:
        return self.factor * super()._change(nx, g, memory, p, rate, t)[0], ()  # type: ignore[attr-defined]


class ScaledLoss(CategoricalCrossentropy):
    """A loss so many times as large."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        object.__setattr__(self, "factor", factor)

    def value(self, nx: Any, scores: Any, target: Any) -> Any:
        return self.factor * super().value(nx, scores, target)  # type: ignore[attr-defined]

    def gradient(self, nx: Any, scores: Any, target: Any) -> Any:
        return self.factor * super().gradient(nx, scores, target)  # type: ignore[attr-defined]


class ScaledSigmoid(FastSigmoid):
    """A surrogate so many times as steep."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        object.__setattr__(self, "factor", factor)

    def derivative(self, nx: Any, u: Any) -> Any:
        return self.factor * super().derivative(nx, u)  # type: ignore[attr-defined]


class ScaledCell(LIFCell):
    """A neuron with so many times the input."""

    def __init__(self, factor: float) -> None:
        super().__init__(threshold=0.3)
        object.__setattr__(self, "factor", factor)

    def update(self, nx: Any, p: Any, s: Any, z: Any, current: Any) -> Any:
        return super().update(nx, p, s, z, self.factor * current)  # type: ignore[attr-defined]


def network(cell: Any, backend: str) -> Stack:
    return Stack([Layer(cell, 8)], CLASSES, inputs=FEATURES, dtype="float64", backend=backend)


MADE: dict[str, Callable[[float, str], Rule]] = {
    "optimizer": lambda f, b: BPTT(Evaluator(LIF(8, CLASSES, backend=b, **DOUBLE)), optimizer=ScaledSGD(f)),
    "loss": lambda f, b: BPTT(Evaluator(LIF(8, CLASSES, backend=b, **DOUBLE), loss=ScaledLoss(f)), optimizer="sgd"),
    "surrogate": lambda f, b: BPTT(Evaluator(network(LIFCell(threshold=0.3, surrogate=ScaledSigmoid(f)), b))),
    "neuron": lambda f, b: BPTT(Evaluator(network(ScaledCell(f), b))),
}


@pytest.mark.parametrize("part", MADE)
def test_parts_that_differ_in_what_their_base_does_not_have(part: str, backend: str) -> None:
    """They share nothing that is compiled; two that are alike do as one."""
    found = [after_steps(MADE[part](factor, backend)) for factor in (1.0, 3.0, 3.0)]
    with unfused():
        wanted = [after_steps(MADE[part](factor, "numpy")) for factor in (1.0, 3.0)]
    assert apart(found[0], wanted[0]) < 1e-10
    assert apart(found[1], wanted[1]) < 1e-10
    assert apart(found[0], found[1]) > 1e-6
    assert apart(found[1], found[2]) == 0


def test_parts_are_equal_if_all_they_hold_is() -> None:
    assert ScaledSGD(2.0) == ScaledSGD(2.0)
    assert hash(ScaledSGD(2.0)) == hash(ScaledSGD(2.0))
    assert ScaledSGD(2.0) != ScaledSGD(3.0)
    assert Adam(1e-3) == Adam(1e-3) != Adam(2e-3)
    assert SGD(0.1) != ScaledSGD(0.1)
    weights = np.ones(2)
    assert Weighted(weights) == Weighted(weights) != Weighted(np.ones(2))
    assert hash(Weighted(weights)) == hash(Weighted(weights))


@dataclass(frozen=True)
class Weighted(CategoricalCrossentropy):
    """A loss with a weight for every class, in an array."""

    of_class: Any = None

    def value(self, nx: Any, scores: Any, target: Any) -> Any:
        return super().value(nx, scores, target) * self._of(nx, scores, target)[..., 0]

    def gradient(self, nx: Any, scores: Any, target: Any) -> Any:
        return super().gradient(nx, scores, target) * self._of(nx, scores, target)

    def _of(self, nx: Any, scores: Any, target: Any) -> Any:
        return nx.sum(nx.asarray(self.of_class, nx.dtype(scores)) * target, axis=-1, keepdims=True)


@dataclass(frozen=True)
class Sliced(CategoricalCrossentropy):
    """A loss that takes a class out of the scores."""

    def value(self, nx: Any, scores: Any, target: Any) -> Any:
        return super().value(nx, scores, target) + scores[:, :, 0] ** 2

    def gradient(self, nx: Any, scores: Any, target: Any) -> Any:
        more = nx.concat([2 * scores[:, :, :1], 0 * scores[:, :, 1:]], 2)
        return super().gradient(nx, scores, target) + more


@pytest.mark.parametrize("loss", [Weighted(np.array([1.0, 2.0, 5.0])), Sliced()], ids=["an array", "a slice"])
@pytest.mark.parametrize("schedule", SCHEDULES[:2], ids=str)
def test_losses_that_are_no_formula_of_numbers(loss: Any, schedule: dict[str, Any], backend: str) -> None:
    def trained(**options: Any) -> dict[str, np.ndarray]:
        return after_steps(EProp(Evaluator(LIF(8, CLASSES, **options, **DOUBLE), loss=loss), **schedule))

    with unfused():
        wanted = trained()
    assert apart(trained(backend=backend), wanted) < 1e-10


def of_jax(u: Any) -> Any:
    import jax.numpy as jnp

    return 1 / (1 + jnp.abs(u)) ** 2


def of_torch(u: Any) -> Any:
    import torch

    return 1 / (1 + torch.abs(u)) ** 2


def of_numpy(u: Any) -> Any:
    return 1 / (1 + np.abs(u)) ** np.float64(2)


@pytest.mark.parametrize(("library", "psi"), [("jax", of_jax), ("torch", of_torch), ("numpy", of_numpy)])
def test_surrogates_in_the_words_of_one_library(library: str, psi: Callable[[Any], Any]) -> None:
    """They go by its operations, from the first step to the last."""
    pytest.importorskip(library)

    @dataclass(frozen=True)
    class Own(FastSigmoid):
        def derivative(self, nx: Any, u: Any) -> Any:
            return psi(u)

    @dataclass(frozen=True)
    class Same(FastSigmoid):
        def derivative(self, nx: Any, u: Any) -> Any:
            return 1 / (1 + nx.abs(u)) ** 2

    cells = [LIFCell(threshold=0.3, surrogate=surrogate) for surrogate in (Own(), Same())]
    found, wanted = (after_steps(EProp(Evaluator(network(cell, library))), steps=12) for cell in cells)
    assert apart(found, wanted) < 1e-10


@pytest.mark.parametrize("cell", [LIF, ALIF])
def test_a_network_that_is_exchanged(cell: Any, backend: str) -> None:
    """Its derivatives are its own, for the whole sequence and for every time step."""
    x, y = data()

    def model(reset: str) -> Evaluator:
        return Evaluator(cell(8, CLASSES, reset=reset, detach_reset=False, backend=backend, **DOUBLE))

    for make in (BPTT, EProp):
        exchanged, fresh = make(model("subtract")), make(model("zero"))
        before = exchanged.gradients(x, y)
        exchanged.model.network = model("zero").network
        wanted = fresh.gradients(x, y)
        assert apart(exchanged.gradients(x, y), wanted) < 1e-12
        assert apart(before, wanted) > 1e-6
        other = make(model("subtract"))
        other.step(x, y)
        other.model = model("zero")
        assert apart(other.gradients(x, y), wanted) < 1e-12


def test_the_decay_of_traces_is_exchanged(backend: str) -> None:
    x, y = data()
    exchanged, fresh = (
        PPProp(Evaluator(LIF(8, CLASSES, backend=backend, **DOUBLE)), decay=decay) for decay in (0.9, 0.2)
    )
    exchanged.gradients(x, y)
    exchanged.trace_decay = 0.2
    assert apart(exchanged.gradients(x, y), fresh.gradients(x, y)) < 1e-12


def test_penalties_of_the_rule_that_another_was_made_with(backend: str) -> None:
    x, y = data()
    rule = Manhattan(Evaluator(LIF(8, CLASSES, backend=backend, **DOUBLE)))
    before = rule.gradients(x, y)
    rule.regularizers = [FiringRate(target=100.0, strength=1000.0)]
    assert apart(rule.gradients(x, y), before) > 1e-3
    rule.gradient.regularizers = ()
    assert apart(rule.gradients(x, y), before) == 0


def test_settings_are_looked_at_when_they_are_assigned() -> None:
    rule = BPTT(Evaluator(LIF(8, CLASSES)))
    rule.clipping = {"name": "global_norm", "limit": 2.0}
    rule.regularizers = ["firing_rate"]
    assert rule.clipping == ClipGlobalNorm(2.0)
    assert isinstance(rule.regularizers[0], FiringRate)
    with pytest.raises(ArgumentError, match="weight_decay"):
        rule.weight_decay = -1.0
    with pytest.raises(ArgumentError, match="clipping"):
        rule.clipping = "nothing_like_it"
    with pytest.raises(IncompatibleError, match="descends no loss"):
        STDP(Evaluator(LIF(8, CLASSES))).regularizers = ["firing_rate"]
    assert rule.weight_decay == 0.0


@pytest.mark.parametrize(
    "given", [{"regularizers": ["firing_rate"]}, {"weight_decay": 0.1}, {"clipping": {"name": "value", "limit": 1.0}}]
)
def test_fptt_takes_the_axes_of_a_rule_alone(given: dict[str, Any]) -> None:
    with pytest.raises(IncompatibleError, match="give them to FPTT"):
        FPTT(Evaluator(LIF(8, CLASSES)), gradient={"name": "eprop", **given})


def test_fptt_takes_no_rule_that_is_more_than_its_axes() -> None:
    class Louder(EProp):
        def signals(self, *given: Any, **options: Any) -> Any:
            return {key: 2 * each for key, each in super().signals(*given, **options).items()}

    model = Evaluator(LIF(8, CLASSES))
    for taken in (Louder(model), "reward_eprop"):
        with pytest.raises(IncompatibleError, match="axes of credit"):
            FPTT(model, gradient=taken)


def test_a_rule_that_decides_pulses_is_left_as_it_was() -> None:
    model = Evaluator(LIF(8, CLASSES, **DOUBLE))
    inner = EProp(model)
    for _ in range(3):
        inner.step(*data())
    rule = Manhattan(model, gradient=inner)
    rule.gradients(*data())
    rule.step(*data())
    assert inner.steps == 3


def test_one_sided_pairs_are_refreshed_in_observed_steps() -> None:
    def make() -> Manhattan:
        crossbar = {"device": "pcm", "encoding": "one_sided", "budget": 50}
        return Manhattan(Evaluator(LIF(8, CLASSES, **DOUBLE)), refresh_every=2, crossbar=crossbar)

    one, other = make(), make()
    for _ in range(4):
        figures = one.step(*data())
        assert other.observed_step(*data())[0] == figures
        for name, value in one.state().items():
            np.testing.assert_array_equal(other.state()[name], value, err_msg=name)


@pytest.mark.parametrize("used", [False, True])
def test_rules_are_pickled(used: bool, backend: str) -> None:
    model = Evaluator(LIF(8, CLASSES, backend=backend, **DOUBLE), metrics=["accuracy"])
    rule = EProp(model, clipping=ClipGlobalNorm(1.0))
    if used:
        after_steps(rule)
    twin = pickle.loads(pickle.dumps(rule))
    assert apart(after_steps(twin), after_steps(rule)) == 0
    assert twin.steps == rule.steps


def test_masked_arrays_are_refused() -> None:
    x, y = data()
    with pytest.raises(DataError, match="masked"):
        BPTT(Evaluator(LIF(8, CLASSES))).step(np.ma.masked_greater(x, 1.0), y)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_a_batch_in_which_nothing_counts_teaches_nothing(schedule: dict[str, Any], backend: str) -> None:
    x, y = data()
    model = Evaluator(LIF(8, CLASSES, backend=backend, **DOUBLE), metrics=["accuracy"])
    rule = EProp(model, optimizer=SGD(0.1), **schedule)
    rule.step(x, y)
    before = model.network.parameters
    figures = rule.step(x, np.full(x.shape[:2], -1))
    assert np.isnan([figures["loss"], figures["accuracy"]]).all()
    assert apart(model.network.parameters, before) == 0


def test_a_data_set_of_which_some_counts_is_trained_on() -> None:
    """However its batches fall; its figures are means over those in which something counts."""
    x, y = data()
    of_steps = np.broadcast_to(y[:, None], x.shape[:2]).copy()
    of_steps[:12] = -1
    trained = Trainer(BPTT(Evaluator(LIF(8, CLASSES, **DOUBLE))))
    history = trained.train(x, of_steps, epochs=2, batch_size=2, progress=False)
    assert all(np.isfinite(epoch["loss"]) for epoch in history.epochs)
    with pytest.raises(DataError, match="at least one time step"):
        trained.train(x, np.full(x.shape[:2], -1), epochs=3, batch_size=2, progress=False)


@dataclass(frozen=True)
class DecayingMatrices(SGD):
    """By how many axes a parameter has."""

    def _change(self, nx: Any, g: Any, memory: Any, p: Any, rate: Any, t: Any) -> Any:
        return -rate * g - (0.5 * rate * p if len(p.shape) > 1 else 0 * p), ()


@dataclass(frozen=True)
class KeepingZeros(SGD):
    """By what a parameter is equal to."""

    def _change(self, nx: Any, g: Any, memory: Any, p: Any, rate: Any, t: Any) -> Any:
        return -rate * g * (p != 0), ()


@dataclass(frozen=True)
class LargeAtFirst(SGD):
    """By the number of the update, and in Python's own words."""

    def _change(self, nx: Any, g: Any, memory: Any, p: Any, rate: Any, t: Any) -> Any:
        return nx.where(t == 1, -3 * rate * (+g), -rate * abs(g)), ()


@pytest.mark.parametrize("backend", ["numpy", "torch", "jax"], indirect=True)
@pytest.mark.parametrize("optimizer", [DecayingMatrices, KeepingZeros, LargeAtFirst])
def test_optimizers_that_ask_what_a_number_does_not_have(optimizer: type[SGD], backend: str) -> None:
    def trained(kind: type[SGD]) -> dict[str, np.ndarray]:
        rule = EProp(Evaluator(LIF(8, CLASSES, backend=backend, **DOUBLE)), optimizer=kind(0.1))
        rule.model.check(*data())
        weights = rule.model.network.parameters["hidden.input.weight"]
        weights[:, ::2] = 0.0
        rule.model.network.set_parameters({"hidden.input.weight": weights})
        return after_steps(rule)

    found = trained(optimizer)
    with unfused():
        wanted = trained(optimizer)
        assert apart(trained(SGD), wanted) > 1e-3, "the optimiser makes no difference: this would prove nothing"
    assert apart(found, wanted) < 1e-12


@dataclass(frozen=True)
class Smoothed(CategoricalCrossentropy):
    """A loss that asks for the number of classes."""

    def gradient(self, nx: Any, outputs: Any, target: Any) -> Any:
        return 2 * (outputs - (0.9 * target + 0.1 / outputs.shape[-1]))

    def value(self, nx: Any, outputs: Any, target: Any) -> Any:
        return nx.sum((outputs - (0.9 * target + 0.1 / outputs.shape[-1])) ** 2, axis=-1)


@pytest.mark.parametrize("backend", ["numpy", "torch", "jax"], indirect=True)
def test_a_loss_that_asks_for_a_shape(backend: str) -> None:
    def trained() -> dict[str, np.ndarray]:
        return after_steps(BPTT(Evaluator(LIF(8, CLASSES, backend=backend, **DOUBLE), loss=Smoothed())))

    found = trained()
    with unfused():
        assert apart(found, trained()) < 1e-10


@dataclass(frozen=True)
class Equal(LIFCell):
    """A neuron that leaks only from where it is not."""

    def update(self, nx: Any, p: Any, s: Any, z: Any, current: Any) -> dict[str, Any]:
        return {"v": p.alpha * s.v * (s.v != 0) + current}


def test_a_neuron_that_asks_what_is_equal_is_refused() -> None:
    with pytest.raises(TypeError, match="compares its values by > or <"):
        BPTT(Evaluator(network(Equal(), "numpy"))).gradients(*data())


@pytest.mark.parametrize("backend", ["numpy", "torch"], indirect=True)
def test_a_stream_is_pickled(backend: str) -> None:
    learner = EProp(Evaluator(LIF(8, CLASSES, backend=backend, **DOUBLE)), online=1).stream()
    (x, y), more = data(1), np.ones((1, FEATURES))
    for x_t in x[0]:
        learner.observe(x_t, int(y[0]))
    twin = pickle.loads(pickle.dumps(learner))
    for _ in range(3):
        np.testing.assert_array_equal(twin.observe(more[0], 1), learner.observe(more[0], 1))


def test_a_models_loss_and_metrics_are_looked_at_when_they_are_assigned() -> None:
    rule = BPTT(Evaluator(LIF(8, CLASSES, **DOUBLE)))
    rule.step(*data())
    rule.model.loss, rule.model.metrics = "mean_squared_error", ["accuracy"]
    fresh = BPTT(Evaluator(rule.model.network, "mean_squared_error", ["accuracy"]))
    assert rule.model.evaluate(*data()) == fresh.model.evaluate(*data())
    with pytest.raises(ArgumentError, match="metrics must be a list"):
        rule.model.metrics = "accuracy"
    with pytest.raises(ArgumentError, match="mean_squared_error"):
        rule.model.loss = "mean_squared_eror"


@dataclass(frozen=True)
class Silent(LIFCell):
    """A neuron that sends its membrane potential, and does not say that this is no spike."""

    def emit(self, nx: Any, p: Any, s: Any) -> Any:
        return nx.tanh(s.v)


@dataclass(frozen=True)
class Told(Silent):
    """One that does."""

    spiking = False


@pytest.mark.parametrize("backend", ["numpy", "torch", "jax"], indirect=True)
def test_a_neuron_that_sends_no_spikes_says_so(backend: str) -> None:
    with pytest.raises(ArgumentError, match=r"Silent, of hidden, sends other numbers than 0 and 1.* spiking = False"):
        network(Silent(), backend)
    found = BPTT(Evaluator(network(Told(), backend))).gradients(*data())
    with unfused():
        assert apart(BPTT(Evaluator(network(Told(), backend))).gradients(*data()), found) < 1e-10
