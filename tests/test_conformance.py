"""The conformance checks for other people's parts: all of ours pass, and a planted fault names its equation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
from credit_cases import HOLDING

from neko_rules import BPTT, RNN, EProp, Layer, Stack
from neko_rules.backend import is_installed
from neko_rules.layers.cell import CELLS, Cell
from neko_rules.layers.integrate_and_fire import ALIFCell, LIFCell
from neko_rules.layers.rate import TanhCell
from neko_rules.rules import RULES
from neko_rules.surrogates import SURROGATES, Surrogate
from neko_rules.testing import check_neuron, check_rule, check_surrogate

AUTODIFF = ["numpy", *(name for name in ("torch",) if is_installed(name))]


def failure(check: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(AssertionError) as caught:
        check(*arguments, **options)
    return str(caught.value)


class TestSurrogates:
    @pytest.mark.parametrize("name", [n for n in SURROGATES if n != "custom"])
    def test_ours_pass(self, name: str) -> None:
        check_surrogate(name, AUTODIFF)

    @pytest.mark.parametrize(
        ("function", "equation"),
        [
            (lambda nx, u: 1 - nx.abs(u), "ψ(u) ≥ 0"),
            (lambda nx, u: nx.maximum(1 - nx.abs(u - 0.2), 0.0), "ψ(u) = ψ(-u)"),
            (lambda nx, u: nx.exp(nx.abs(u)) * 1e-3, "ψ(u) ≤ ψ(0)"),
            (lambda nx, u: 1 / (nx.abs(u) - 1e3), "ψ(u) is finite"),
            (lambda nx, u: nx.sum(u), "shape and type"),
        ],
        ids=["negative", "lopsided", "growing", "infinite", "one number"],
    )
    def test_a_fault_names_its_equation(self, function: Any, equation: str) -> None:
        class Wrong(Surrogate):
            def derivative(self, nx: Any, u: Any) -> Any:
                return function(nx, u)

        with np.errstate(all="ignore"):
            assert equation in failure(check_surrogate, Wrong(), ["numpy"])

    def test_one_that_promises_no_symmetry(self) -> None:
        class Half(Surrogate):
            def derivative(self, nx: Any, u: Any) -> Any:
                return nx.where(u > 0, 0.5 * nx.exp(-nx.abs(u)), nx.exp(-nx.abs(u)))

        assert "ψ(u) = ψ(-u)" in failure(check_surrogate, Half(), ["numpy"])
        check_surrogate(Half(), AUTODIFF, symmetric=False)

    @pytest.mark.skipif(len(AUTODIFF) < 2, reason="torch is not installed")
    def test_backends_that_differ(self) -> None:
        class Partial(Surrogate):
            def derivative(self, nx: Any, u: Any) -> Any:
                return nx.exp(-nx.abs(u)) * (1.0 if nx.name == "numpy" else 1 + 1e-6)

        assert "ψ on torch = ψ on numpy" in failure(check_surrogate, Partial(), AUTODIFF)


class TestNeurons:
    @pytest.mark.parametrize("name", list(CELLS))
    def test_ours_pass(self, name: str) -> None:
        check_neuron(name, ["numpy"])

    @pytest.mark.parametrize(
        "cell",
        [
            ALIFCell(refractory_period=2e-3, beta=[0.0, 0.1, 0.2, 0.3], learnable=("beta", "threshold")),
            LIFCell(reset="zero", detach_reset=False, surrogate="fast_sigmoid", learnable=("membrane_decay",)),
        ],
        ids=["alif", "lif"],
    )
    def test_options_pass_with_automatic_differentiation(self, cell: Cell) -> None:
        check_neuron(cell, AUTODIFF)

    @pytest.mark.parametrize(
        ("entry", "equation"),
        [
            (("D", "v", "v"), "∂v_t/∂v_t-1"),
            (("D", "a", "a"), "∂a_t/∂a_t-1"),
            (("r", "a"), "∂a_t/∂z_t-1"),
            (("q", "v"), "∂v_t/∂I_t"),
            (("h", "a"), "∂z_t/∂a_t"),
        ],
        ids=str,
    )
    def test_a_wrong_derivative_is_named(self, monkeypatch: pytest.MonkeyPatch, entry: Any, equation: str) -> None:
        from neko_rules.layers.jacobians import Jacobians

        original = Jacobians.evaluate

        def wrong(self: Any, *arguments: Any) -> Any:
            found = original(self, *arguments)
            return {**found, **({entry: found[entry] * 1.001} if entry in found else {})}

        monkeypatch.setattr(Jacobians, "evaluate", wrong)
        said = failure(check_neuron, "alif", ["numpy"])
        assert f"{equation} as derived = central differences" in said
        assert said.startswith("neuron ALIFCell fails 1 check")

    def test_neurons_that_know_of_each_other(self) -> None:
        @dataclass(frozen=True)
        class Coupled(TanhCell):
            def update(self, nx: Any, p: Any, s: Any, z: Any, current: Any) -> Any:
                found = super().update(nx, p, s, z, current)
                return {name: value + 0.1 * np.mean(current, axis=-1, keepdims=True) for name, value in found.items()}

        assert "depends on that neuron alone" in failure(check_neuron, Coupled(), ["numpy"])

    def test_a_graded_spike(self) -> None:
        @dataclass(frozen=True)
        class Graded(LIFCell):
            def emit(self, nx: Any, p: Any, s: Any) -> Any:
                return 0.5 * nx.spike(s.v - p.theta)

        assert "z_t is 0 or 1: 0.5" in failure(check_neuron, Graded(threshold=0.1), ["numpy"])

    def test_a_shape_that_is_lost(self) -> None:
        @dataclass(frozen=True)
        class Lost(LIFCell):
            def update(self, nx: Any, p: Any, s: Any, z: Any, current: Any) -> Any:
                return {"v": current[0]}

        assert "v_t has the shape of I_t" in failure(check_neuron, Lost(), ["numpy"])


class Spoiled(BPTT):
    """BPTT with something planted."""

    fault = ""

    def _judged_gradients(self, values: Any, own: Any, drawn: Any, batch: Any) -> Any:
        judgement, found = super()._judged_gradients(values, own, drawn, batch)
        name = "hidden.recurrent.weight"
        if self.fault == "batch":
            found = {**found, name: found[name] * batch[0].shape[1]}
        if self.fault == "missing":
            found = {key: value for key, value in found.items() if key != name}
        if self.fault == "shape":
            found = {**found, name: found[name][0]}
        if self.fault == "dead":
            found = {key: 0 * value for key, value in found.items()}
        if self.fault == "random":
            found = {**found, name: found[name] * np.random.default_rng().uniform()}
        if self.fault == "backend" and self.nx.name != "numpy":
            found = {**found, name: found[name] * (1 + 1e-6)}
        return judgement, found

    def applied(self, *arguments: Any) -> Any:
        kept = super().applied(*arguments)
        return kept._replace(values=arguments[0]) if self.fault == "still" else kept


class TestRules:
    @pytest.mark.parametrize("name", list(RULES))
    def test_ours_pass(self, name: str) -> None:
        check_rule(partial(RULES[name], **HOLDING.get(name, {})), backends=["numpy"])

    @pytest.mark.parametrize("mode", ["random", "adaptive", "sign"])
    def test_modes_pass_on_two_backends(self, mode: str) -> None:
        check_rule(lambda model, **options: EProp(model, mode=mode, **options), backends=AUTODIFF)

    def test_an_identity(self) -> None:
        def rate(backend: str) -> Any:
            return RNN(5, 3, inputs=4, backend=backend, dtype="float64", recurrent=False)

        check_rule(EProp, rate, ["numpy"], equals=BPTT)
        assert "gradient of hidden.recurrent.weight = that of BPTT" in failure(
            check_rule, EProp, backends=["numpy"], equals=BPTT
        )

    @pytest.mark.parametrize(
        ("fault", "equation"),
        [
            ("batch", "gradient of hidden.recurrent.weight = mean over parts of the batch"),
            ("shape", "gradient of hidden.recurrent.weight has the shape and type"),
            ("dead", "some gradient differs from 0"),
            ("random", "gradient of hidden.recurrent.weight, called twice, is the same"),
            ("still", "step() changes the weights"),
        ],
    )
    def test_a_fault_names_its_equation(self, monkeypatch: pytest.MonkeyPatch, fault: str, equation: str) -> None:
        monkeypatch.setattr(Spoiled, "fault", fault)
        assert equation in failure(check_rule, Spoiled, backends=["numpy"])

    @pytest.mark.skipif(len(AUTODIFF) < 2, reason="torch is not installed")
    def test_a_fault_on_one_backend(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Spoiled, "fault", "backend")
        said = failure(check_rule, Spoiled, backends=AUTODIFF)
        assert "gradient of hidden.recurrent.weight = on numpy, on torch" in said

    def test_a_spoiled_update(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from neko_rules.optimizers import Naive

        monkeypatch.setattr(Naive, "_change", lambda self, nx, g, memory, p, rate, t: (-1.01 * g, ()))
        assert "Δ(hidden.input.weight) = -gradient (naive)" in failure(check_rule, BPTT, backends=["numpy"])


def test_stacks_of_two_layers_pass() -> None:
    def two(backend: str) -> Any:
        strong = {"name": "scaled_normal", "gain": 1.5}
        layers = [Layer(cell, 6, initializer=strong, recurrent_initializer=strong) for cell in ("alif", "lif")]
        return Stack(layers, 3, inputs=4, backend=backend, dtype="float64", seed=2)

    check_rule(EProp, two, ["numpy"])
