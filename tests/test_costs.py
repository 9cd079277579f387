"""Costs: what was counted is what was done, in closed form; what is kept has its size; and nothing is changed by it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from credit_cases import data, stack
from typer.testing import CliRunner

from neko_rules import BPTT, LIF, OTTT, EProp, Evaluator, Layer, Manhattan, Stack, TorchModel
from neko_rules.cli import app
from neko_rules.costs import Count, CountingBackend, costs
from neko_rules.errors import IncompatibleError
from neko_rules.layers.integrate_and_fire import LIFCell
from neko_rules.layers.rate import LeakyReadoutCell
from neko_rules.rules import RULES
from neko_rules.testing import check_backend


def counted(*, function: Any, arrays: list[np.ndarray]) -> Count:
    nx = CountingBackend()
    given = [nx.asarray(each) for each in arrays]
    with nx.counting() as found:
        function(nx, *given)
    return found


A = np.array([[2.0, 0.0, 3.0], [0.0, 0.0, 4.0]])
SPIKES = np.array([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
W = np.array([[1.5, 2.0], [1.0, 0.0], [0.0, 5.0]])


@pytest.mark.parametrize(
    ("function", "arrays", "multiplications", "additions", "others", "dense"),
    [
        # Row 0: column 0 of A with two weights, column 2 with one; row 1: one. Dense: 2 · 2 · 3 · 2.
        (lambda nx, a, w: nx.matmul(a, w), [A, W], 4, 4, 0, 24),
        (lambda nx, a, w: nx.matmul(a, w), [SPIKES, W], 0, 4, 0, 24),
        (lambda nx, a, w: nx.einsum("ij,jk->ik", a, w), [A, W], 4, 4, 0, 24),
        (lambda nx, a, b: a * b, [A, A], 3, 0, 0, 6),
        (lambda nx, a, b: a * b, [A, SPIKES], 0, 0, 0, 6),
        (lambda nx, a: 0.5 * a, [A], 3, 0, 0, 6),
        (lambda nx, a, b: a + b, [A, SPIKES], 0, 3, 0, 6),
        (lambda nx, a: a - 1.0, [A], 0, 3, 0, 6),
        # Two columns with numbers in them, one with two of these: one addition, where dense sums take three.
        (lambda nx, a: nx.sum(a, axis=0), [A], 0, 1, 0, 3),
        (lambda nx, a: nx.exp(a), [A], 0, 0, 6, 6),
        (lambda nx, a: a / 2.0, [A], 0, 0, 6, 6),
        (lambda nx, a: nx.reshape(nx.transpose(a, (1, 0)), (6,)), [A], 0, 0, 0, 0),
        (lambda nx, a: -a, [A], 0, 0, 0, 6),
    ],
)  # fmt: skip
def test_an_operation_is_counted(
    function: Any, arrays: list[np.ndarray], multiplications: int, additions: int, others: int, dense: int
) -> None:
    assert counted(function=function, arrays=arrays) == Count(multiplications, additions, others, dense)


def test_it_is_a_backend_as_any_other() -> None:
    check_backend(CountingBackend())


def test_the_forward_pass_of_one_event_in_closed_form() -> None:
    """A silent neuron receives one spike: a row of weights is added, then a membrane leaks and meets its threshold."""
    steps, neurons = 12, 7
    network = Stack(
        [Layer(LIFCell(threshold=1e6), neurons, recurrent=False, bias=False)], 3, inputs=5, readout_bias=False,
        output_cell=LeakyReadoutCell(5e-3), dtype="float64",
    )  # fmt: skip
    x = np.zeros((1, steps, 5))
    x[0, 0, 2] = 1
    found = costs(BPTT(Evaluator(network)), x, [1]).forward * steps
    assert found.additions == neurons + steps * neurons  # the row; u = (v - θ)/θ in every step
    assert found.multiplications == (steps - 1) * neurons  # α v, once there is a v
    assert found.others == 2 * steps * neurons  # the quotient, and u > 0


def test_what_is_kept_has_its_size() -> None:
    inputs, neurons, outputs, size = 6, 9, 3, 8
    network = LIF(neurons, outputs, inputs=inputs, dtype="float64")
    x, y = data(inputs=inputs)
    model = Evaluator(network)
    of = {name: costs(rule, x, y) for name, rule in {
        "bptt": BPTT(model), "ottt": OTTT(model, online=True), "window": BPTT(model, window=5)
    }.items()}  # fmt: skip
    # Of every step the input, ψ and spikes of the neurons and the outputs themselves.
    per_step = size * (inputs + 2 * neurons + outputs)
    assert (of["bptt"].kept, of["bptt"].grows) == (per_step, True)
    assert (of["window"].kept, of["window"].grows) == (5 * per_step, False)
    # Of every connection what it received, leaking; of every bias a constant.
    assert (of["ottt"].kept, of["ottt"].grows) == (size * (inputs + neurons + 1 + neurons + 1), False)
    assert costs(Manhattan(model), x, y).kept == per_step


def test_what_rules_are_known_to_cost() -> None:
    x, y = data(batch=2, steps=30)
    model = Evaluator(stack("alif", size=20)("numpy"))
    bptt, deferred, online = (costs(rule, x, y) for rule in (BPTT(model), EProp(model), EProp(model, online=True)))
    assert bptt.forward == deferred.forward == online.forward
    assert deferred.learning.total < bptt.learning.total < online.learning.total
    assert bptt.update == deferred.update
    assert online.writes > 20 * deferred.writes
    assert bptt.parameters == model.network.size
    assert bptt.energy > 0
    # Twice the neurons: four times the traces of synapses.
    twice = costs(EProp(Evaluator(stack("alif", size=40)("numpy")), online=True), x, y)
    assert online.kept is not None
    assert twice.kept is not None
    assert 3 < twice.kept / online.kept < 4


def test_what_is_fixed_is_not_written() -> None:
    x, y = data()
    model = Evaluator(stack("alif")("numpy"))
    whole, part = (costs(BPTT(model, rate_factors=each), x, y) for each in (None, {"hidden": 0}))
    assert part.writes == 6 * 3 + 3 < whole.writes


@pytest.mark.parametrize("name", list(RULES))
def test_every_rule_is_counted_and_stays_as_it_is(name: str) -> None:
    x, y = data(batch=2, steps=6)
    options: dict[str, Any] = {"crossbar": {"w_max": 4.0}} if name.startswith("tiki_taka") else {}
    rule = RULES[name](Evaluator(stack("alif")("numpy"), metrics=["accuracy"]), **options)
    rule.prepared()
    before = rule.state()
    found = costs(rule, x, y)
    assert found.learning.total > 0
    assert found.update.dense > 0
    assert found.learning.dense >= found.learning.multiplications
    for key, value in rule.state().items():
        np.testing.assert_array_equal(value, before[key], err_msg=key)


def test_values_that_are_encoded_and_other_backends() -> None:
    pytest.importorskip("torch")
    encoder = {"name": "rate", "steps": 20}
    x, y = np.random.default_rng(0).random((3, 4)), np.array([0, 1, 2])
    found = [costs(BPTT(Evaluator(stack("lif")(backend), encoder=encoder)), x, y) for backend in ("numpy", "torch")]
    assert found[0] == found[1]
    assert found[0].forward.additions > 0


def test_the_operations_of_a_wrapped_model_are_not_seen() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(IncompatibleError, match="count a Network"):
        costs(BPTT(Evaluator(TorchModel(torch.nn.Linear(4, 3)))), np.zeros((2, 4)), [0, 1])


def test_the_command_line(tmp_path: Any) -> None:
    config = tmp_path / "small.yaml"
    config.write_text("data: {name: randman, seed: 1}\nmodel: {name: LIF, hidden: 16, outputs: 10}\nrule: bptt\n")
    rules = "--rules", "bptt", "--rules", "eprop:online=true"
    result = CliRunner().invoke(app, ["costs", str(config), *rules, "--examples", "2"])
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0].split() == ["forward", "learning", "update", "dense", "kept", "writes", "energy"]
    assert lines[1].startswith("bptt")
    assert "B × T" in lines[1]
    assert lines[2].startswith("eprop:online=true")
    assert "× T" not in lines[2]
    assert CliRunner().invoke(app, ["costs", str(config)]).output.splitlines()[1].startswith("bptt")
