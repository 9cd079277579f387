"""Named rules: what each equals exactly, in float64, on networks that are alive; and that each choice matters."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from credit_cases import INPUTS, NETWORKS, OUTPUTS, alive, data, distance, network_of, stack

from neko_rules import (
    BPTT,
    DFA,
    DRTP,
    ETLP,
    FPTT,
    LIF,
    OSTL,
    OSTTP,
    OTPE,
    OTTT,
    RFLO,
    RTRL,
    ApproximateOTPE,
    EProp,
    Evaluator,
    FeedbackAlignment,
    KolenPollack,
    Layer,
    LearningRule,
    Network,
    PPProp,
    SignSymmetric,
    SnAp,
    Stack,
    TruncatedBPTT,
    WeightMirror,
)
from neko_rules.credit.influence import reach
from neko_rules.errors import IncompatibleError
from neko_rules.layers.integrate_and_fire import ALIFCell, LIFCell
from neko_rules.optimizers import SGD

SAME = 1e-12
"""Relative tolerance for one number computed in two ways in float64."""

STRONG = {"name": "scaled_normal", "gain": 1.5}


def model_of(name: str, backend: str = "numpy") -> Evaluator:
    return Evaluator(network_of(name, backend))


def feedforward(*cells: Any, size: int = 6, **options: Any) -> Evaluator:
    """A feed-forward stack of one layer per cell, that spikes."""
    layers = [Layer(cell, size + i, recurrent=False, initializer={"name": "scaled_normal", "gain": 2.0})
              for i, cell in enumerate(cells)]  # fmt: skip
    return Evaluator(Stack(layers, OUTPUTS, inputs=INPUTS, dtype="float64", seed=3, **options))


# RTRL and what approximates it.


@pytest.mark.parametrize("name", [*NETWORKS, "feedback"])
def test_rtrl_equals_bptt(name: str) -> None:
    x, y = data()
    model = model_of(name)
    alive(model, x)
    assert distance(RTRL(model, evaluation="traces").gradients(x, y), BPTT(model).gradients(x, y)) < SAME


@pytest.mark.parametrize("name", ["lif", "alif", "per neuron", "refractory", "reset not detached", "tanh"])
def test_snap_1_equals_eprop_without_autapses(name: str) -> None:
    x, y = data()
    model = model_of(name)
    assert distance(SnAp(model, reach=1).gradients(x, y), EProp(model).gradients(x, y)) < SAME
    assert distance(SnAp(model, reach=2).gradients(x, y), EProp(model).gradients(x, y)) > 1e-3


def test_snap_1_differs_from_eprop_with_autapses() -> None:
    """A neuron's own recurrent weight is one of the paths of SnAp-1, and none of e-prop's."""
    x, y = data()
    model = model_of("autapses")
    assert distance(SnAp(model, reach=1).gradients(x, y), EProp(model).gradients(x, y)) > 1e-3


def ring(size: int, backend: str = "numpy") -> Evaluator:
    """Populations of two neurons in a ring of delayed connections, each read out."""
    names = [f"p{i}" for i in range(size)]
    ends = [("input", name, 0) for name in names] + [(name, "readout", 0) for name in names]
    ends += [(names[i], names[(i + 1) % size], 1) for i in range(size)]
    return Evaluator(
        Network(
            {**{name: {"cell": LIFCell(threshold=0.5), "size": 2} for name in names},
             "readout": {"cell": "leaky_readout", "size": OUTPUTS}},
            [{"source": s, "target": t, "delay": d, "initializer": STRONG} for s, t, d in ends],
            "readout", inputs=INPUTS, dtype="float64", seed=2, backend=backend,
        )
    )  # fmt: skip


def test_snap_n_climbs_to_rtrl_at_the_diameter_of_a_ring() -> None:
    """An effect takes a time step from one population to the next, and four to the neuron beside its own."""
    x, y = data(steps=30)
    model = ring(4)
    alive(model, x)
    exact = RTRL(model, evaluation="traces").gradients(x, y)
    errors = [distance(SnAp(model, reach=n).gradients(x, y), exact) for n in (1, 2, 3, 4, 5)]
    assert errors[4] < SAME
    assert all(one > 2 * other for one, other in pairwise(errors))
    assert errors[3] > 1e-4
    counts = [int(sum(reach(model.network.graph, n)[f"p{i}", "p0"].sum() for i in range(4))) for n in (1, 2, 3, 4, 5)]
    # Two neurons, each reaching itself; then both neurons of one more population in each step, and at last of its own.
    assert counts == [2, 6, 10, 14, 16]


def test_snap_1_on_an_effect_within_the_step() -> None:
    """Within a step an effect goes up through all layers: SnAp-1 of a feed-forward stack is RTRL."""
    x, y = data()
    model = feedforward(LIFCell(threshold=0.5), LIFCell(threshold=0.3))
    alive(model, x)
    assert distance(SnAp(model, reach=1).gradients(x, y), BPTT(model).gradients(x, y)) < SAME


# e-prop.


@pytest.mark.parametrize("cell", [LIFCell(), ALIFCell(beta=0.3), LIFCell(reset="zero", detach_reset=False)], ids=str)
def test_eprop_equals_rtrl_where_the_recurrent_spikes_are_given_as_data(cell: Any) -> None:
    x, y = data()
    recurrent = Evaluator(stack(cell)("numpy"))
    alive(recurrent, x)
    z = recurrent.trajectory(x).z("hidden").transpose(1, 0, 2)
    before = np.concatenate([np.zeros_like(z[:, :1]), z[:, :-1]], axis=1)
    network = Stack([Layer(cell, 6, recurrent=False)], OUTPUTS, inputs=INPUTS + 6, dtype="float64")
    weights = recurrent.network.parameters
    joined = np.concatenate([weights["hidden.input.weight"], weights["hidden.recurrent.weight"]])
    same = {name: value for name, value in weights.items() if name in network.parameters}
    network.set_parameters({**same, "hidden.input.weight": joined})
    cut = RTRL(Evaluator(network), evaluation="traces").gradients(np.concatenate([x, before], axis=2), y)
    found = EProp(recurrent).gradients(x, y)
    both = np.concatenate([found["hidden.input.weight"], found["hidden.recurrent.weight"]])
    reference = cut["hidden.input.weight"].copy()
    np.fill_diagonal(reference[INPUTS:], 0.0)
    assert distance({"w": both, "b": found["hidden.bias"]}, {"w": reference, "b": cut["hidden.bias"]}) < SAME


def test_rflo_equals_random_eprop_for_a_readout_without_memory() -> None:
    x, y = data()
    model = Evaluator(stack(ALIFCell(beta=0.3), tau_readout=0.0)("numpy"))
    assert distance(RFLO(model, seed=2).gradients(x, y), EProp(model, mode="random", seed=2).gradients(x, y)) < SAME
    model = model_of("alif")
    assert distance(RFLO(model, seed=2).gradients(x, y), EProp(model, mode="random", seed=2).gradients(x, y)) > 1e-2


# OTTT, OTPE, pp-prop: feed-forward rules, against loops written from the papers' equations.


class Feedforward:
    """A feed-forward LIF stack run once: spikes, inputs and surrogate derivatives of every layer, and the error."""

    def __init__(self, model: Evaluator, x: np.ndarray, y: Any) -> None:
        network = model.network
        inputs, target, mask = model.batch(x, y)
        recorded = model.trajectory(x)
        self.weights = network.parameters
        self.names = [name for name in network.graph.order if name != "readout"]
        self.error = model.judge(network.forward(network.values, inputs), target, mask).signals["readout", "z"]
        self.input, self.spikes, self.slope, self.decay = {}, {}, {}, {}
        below = inputs
        for name in self.names:
            cell = network.graph.cell(name)
            constants = cell.constants(network.dt)
            u = (recorded.records[name].states["v"] - constants["theta"]) / constants["theta"]
            self.input[name], self.spikes[name] = below, recorded.z(name)
            self.slope[name] = cell.surrogate.derivative(network.nx, u) / constants["theta"]
            self.decay[name] = constants["alpha"]
            below = recorded.z(name)
        self.kappa = network.graph.cell("readout").constants(network.dt)["alpha"]
        self.steps = len(inputs)

    def filtered(self, values: np.ndarray, decay: float) -> np.ndarray:
        """a_t = λ a_{t-1} + values_t."""
        found, last = [], 0.0 * values[0]
        for value in values:
            last = decay * last + value
            found.append(last)
        return np.array(found)

    def down(self, name: str) -> np.ndarray:
        """The weights from a layer to the one above."""
        place = self.names.index(name)
        above = "readout" if place == len(self.names) - 1 else self.names[place + 1]
        return self.weights[f"{above}.input.weight"]


def two_layers(**options: Any) -> tuple[Evaluator, np.ndarray, np.ndarray]:
    x, y = data()
    cells = LIFCell(threshold=0.5, tau_membrane=8e-3), LIFCell(threshold=0.3, tau_membrane=5e-3)
    model = feedforward(*cells, **options)
    alive(model, x)
    return model, x, y


def test_ottt_equals_its_equations() -> None:
    model, x, y = two_layers()
    run, found = Feedforward(model, x, y), OTTT(model).gradients(x, y)
    g = run.error
    for name in reversed(run.names):
        g = g @ run.down(name).T
        local = g * run.slope[name]
        trace = run.filtered(run.input[name], run.decay[name])
        np.testing.assert_allclose(found[f"{name}.input.weight"], np.einsum("tbi,tbj->ij", trace, local), rtol=1e-11)
        ones = run.filtered(np.ones_like(local[..., :1]), run.decay[name])
        np.testing.assert_allclose(found[f"{name}.bias"], np.einsum("tbi,tbj->j", ones, local), rtol=1e-11)
        g = local


def test_ottt_equals_ostl_for_feedforward_lif_with_the_reset_detached() -> None:
    model, x, y = two_layers()
    assert distance(OTTT(model).gradients(x, y), OSTL(model).gradients(x, y)) < SAME


@pytest.mark.parametrize(
    "cell", [LIFCell(threshold=0.5, detach_reset=False), ALIFCell(threshold=0.5, beta=0.5)], ids=str
)
def test_ottt_leaves_out_what_a_spike_does_to_its_own_neuron(cell: Any) -> None:
    x, y = data()
    model = feedforward(cell)
    assert distance(OTTT(model).gradients(x, y), OSTL(model).gradients(x, y)) > 1e-3


def otpe_by_hand(run: Feedforward, approximate: bool) -> dict[str, np.ndarray]:
    """R_t = λ R_{t-1} + e_t, or ζ_t = λ ζ_{t-1} + a_t; ḡ_t = (λ n_{t-1} ḡ_{t-1} + σ_t)/n_t; λ of the layer above."""
    found: dict[str, np.ndarray] = {}
    g = run.error
    leaks = [*(run.decay[name] for name in run.names[1:]), run.kappa]
    for place in reversed(range(len(run.names))):
        name, leak = run.names[place], leaks[place]
        signal = g @ run.down(name).T
        count, mean, means = 0.0, 0.0 * run.slope[name][0], []
        for slope in run.slope[name]:
            mean = (leak * count * mean + slope) / (leak * count + 1)
            count = leak * count + 1
            means.append(mean)
        trace = run.filtered(run.input[name], run.decay[name])
        if approximate:
            estimate, factor = run.filtered(trace, leak)[..., None], (signal * np.array(means))[:, :, None, :]
        else:
            e = trace[..., None] * run.slope[name][:, :, None, :]
            estimate, factor = run.filtered(e, leak), signal[:, :, None, :]
        found[f"{name}.input.weight"] = (estimate * factor).sum(axis=(0, 1))
        g = signal * np.array(means)
    return found


@pytest.mark.parametrize("approximate", [False, True])
def test_otpe_equals_its_equations(approximate: bool) -> None:
    model, x, y = two_layers()
    expected = otpe_by_hand(Feedforward(model, x, y), approximate)
    found = (ApproximateOTPE if approximate else OTPE)(model).gradients(x, y)
    assert distance({name: found[name] for name in expected}, expected) < SAME


@pytest.mark.parametrize("approximate", [False, True])
def test_the_leak_that_otpe_filters_with_knows_nothing_of_resets(approximate: bool) -> None:
    x, y = data()
    cells = LIFCell(threshold=0.5, tau_membrane=8e-3), LIFCell(threshold=0.3, tau_membrane=5e-3, reset="zero")
    model = feedforward(*cells)
    alive(model, x)
    run = Feedforward(model, x, y)
    expected, lowest = otpe_by_hand(run, approximate), f"{run.names[0]}.input.weight"
    found = (ApproximateOTPE if approximate else OTPE)(model).gradients(x, y)
    assert distance({lowest: found[lowest]}, {lowest: expected[lowest]}) < SAME


@pytest.mark.parametrize("output", ["leaky_readout", LIFCell(threshold=0.4, tau_membrane=7e-3)], ids=str)
def test_otpe_equals_bptt_for_one_hidden_lif_layer(output: Any) -> None:
    """Below a LIF or a leaky output, resets detached: the leak of the output is all the memory above."""
    x, y = data()
    hidden = LIFCell(threshold=0.5)
    model = Evaluator(
        Network(
            {"hidden": {"cell": hidden, "size": 8}, "readout": {"cell": output, "size": OUTPUTS}},
            [
                {"source": "input", "target": "hidden", "initializer": {"name": "scaled_normal", "gain": 2.0}},
                {"source": "hidden", "target": "readout", "initializer": STRONG},
            ],
            "readout", inputs=INPUTS, dtype="float64", seed=3,
        )
    )  # fmt: skip
    alive(model, x)
    assert distance(OTPE(model).gradients(x, y), BPTT(model).gradients(x, y)) < SAME
    assert distance(OSTL(model).gradients(x, y), BPTT(model).gradients(x, y)) > 1e-2


def test_approximate_otpe_equals_ottt_where_the_layer_above_does_not_remember() -> None:
    x, y = data()
    model = feedforward(LIFCell(threshold=0.5), tau_readout=0.0)
    assert distance(ApproximateOTPE(model).gradients(x, y), OTTT(model).gradients(x, y)) < SAME
    model = feedforward(LIFCell(threshold=0.5))
    assert distance(ApproximateOTPE(model).gradients(x, y), OTTT(model).gradients(x, y)) > 1e-2


def test_otpe_refuses_a_network_that_is_no_chain_of_leaky_layers() -> None:
    with pytest.raises(IncompatibleError, match="a chain of layers"):
        OTPE(model_of("feedback"))
    with pytest.raises(IncompatibleError, match="at one rate"):
        OTPE(model_of("readout per neuron"))


@pytest.mark.parametrize("decay", [0.0, 0.7])
def test_pp_prop_equals_its_equations(decay: float) -> None:
    model, x, y = two_layers()
    run, found = Feedforward(model, x, y), PPProp(model, decay=decay).gradients(x, y)
    g = run.error
    for name in reversed(run.names):
        g = g @ run.down(name).T
        pre, post = run.filtered(run.input[name], decay), np.zeros_like(g)
        for t in range(run.steps):
            post[t] = (decay * run.decay[name] * post[t - 1] if t else 0.0) + (1 - decay)
        share = (1 - decay ** np.arange(1, run.steps + 1))[:, None, None]
        local = g * run.slope[name]
        expected = np.einsum("tbi,tbj->ij", pre, local * post / share)
        np.testing.assert_allclose(found[f"{name}.input.weight"], expected, rtol=1e-11)
        g = local


def test_pp_prop_without_smoothing_is_the_rule_without_temporal_credit() -> None:
    x, y = data()
    for name in ("alif", "deep", "refractory"):
        model = model_of(name)
        assert (
            distance(PPProp(model, decay=0.0).gradients(x, y), LearningRule(model, temporal="none").gradients(x, y))
            < SAME
        )
        assert distance(PPProp(model, decay=0.9).gradients(x, y), PPProp(model, decay=0.0).gradients(x, y)) > 1e-3


# Targets and the layers' own losses.


def test_etlp_equals_osttp_in_feedforward_layers_and_drtp_is_osttp_with_layer_credit() -> None:
    x, y = data()
    model, recurrent = feedforward(ALIFCell(threshold=0.5), LIFCell(threshold=0.3)), model_of("deep")
    found = {rule: rule(model, online=False, seed=4).gradients(x, y) for rule in (ETLP, OSTTP)}
    assert distance(found[ETLP], found[OSTTP]) < SAME
    assert (
        distance(ETLP(recurrent, online=False).gradients(x, y), OSTTP(recurrent, online=False).gradients(x, y)) > 1e-3
    )
    assert distance(DRTP(recurrent).gradients(x, y), OSTTP(recurrent, online=False).gradients(x, y)) < SAME


def test_a_target_projection_is_ostl_with_the_projected_target_for_an_error() -> None:
    """One hidden layer: OSTL's gradient is linear in the error at the hidden layer, here given by hand."""
    x, y = data()
    rule = OSTTP(model_of("alif"), online=False, seed=4)
    matrix = rule.feedback["hidden.feedback"]
    one_hot = np.eye(OUTPUTS)[y]
    recorded = rule.model.trajectory(x)
    signal = np.broadcast_to(-(one_hot @ matrix.T) / (x.shape[0] * x.shape[1]), recorded.z("hidden").shape)
    inputs, _, _ = rule.model.batch(x, y)
    trajectory = rule.model.network.forward(rule.model.network.values, inputs)
    expected = rule.adjoint(
        rule.model.network.values, {"feedback": rule.feedback}, trajectory, {("hidden", "z"): signal}
    )
    found = rule.gradients(x, y)
    names = [name for name in found if name.startswith("hidden")]
    assert distance({n: found[n] for n in names}, {n: expected[n] for n in names}) < SAME


def test_decolle_equals_ottt_of_each_layer_alone_under_its_own_readout() -> None:
    x, y = data()
    model = feedforward(LIFCell(threshold=0.5), LIFCell(threshold=0.3))
    from neko_rules import DECOLLE

    rule = DECOLLE(model, online=False, seed=4)
    found, below, weights = rule.gradients(x, y), x, model.network.parameters
    for place in range(2):
        name = f"hidden{place}"
        cell, size = model.network.graph.cell(name), weights[f"{name}.bias"].size
        options = {"tau_readout": 0.0, "readout_bias": False, "dtype": "float64"}
        alone = Stack([Layer(cell, size, recurrent=False)], OUTPUTS, inputs=below.shape[2], **options)  # type: ignore[arg-type]
        alone.set_parameters(
            {"hidden.input.weight": weights[f"{name}.input.weight"], "hidden.bias": weights[f"{name}.bias"],
             "readout.input.weight": rule.feedback[f"{name}.feedback"]}
        )  # fmt: skip
        expected = OTTT(Evaluator(alone)).gradients(below, y)["hidden.input.weight"]
        assert distance({"w": found[f"{name}.input.weight"]}, {"w": expected}) < SAME
        below = model.trajectory(x).z(name).transpose(1, 0, 2)


# Feedback.


@pytest.mark.parametrize("name", ["alif", "lif", "tanh", "reset not detached", "readout per neuron"])
def test_dfa_equals_feedback_alignment_at_one_hidden_layer(name: str) -> None:
    x, y = data()
    model = model_of(name)
    alignment, direct = FeedbackAlignment(model, seed=4), DFA(model)
    direct.load_state({**direct.state(), "feedback/hidden.feedback": alignment.feedback["readout.input.weight"]})
    assert distance(direct.gradients(x, y), alignment.gradients(x, y)) < SAME


def test_dfa_differs_from_feedback_alignment_in_a_deep_network() -> None:
    x, y = data()
    model = model_of("deep")
    found, other = DFA(model).gradients(x, y), FeedbackAlignment(model).gradients(x, y)
    assert distance({"w": found["hidden0.input.weight"]}, {"w": other["hidden0.input.weight"]}) > 0.1


def test_feedback_alignment_equals_bptt_through_the_forward_weights() -> None:
    x, y = data()
    model = model_of("deep")
    rule, weights = FeedbackAlignment(model), model.network.parameters
    rule.load_state({**rule.state(), **{f"feedback/{name}": weights[name] for name in rule.feedback}})
    assert distance(rule.gradients(x, y), BPTT(model).gradients(x, y)) < SAME


def test_sign_symmetric_equals_bptt_where_every_weight_has_one_strength() -> None:
    x, y = data()
    model = model_of("deep")
    weights = model.network.parameters
    even = {name: np.sign(value) / np.sqrt(len(value)) for name, value in weights.items() if "hidden0.input" not in name
            and name.endswith("input.weight")}  # fmt: skip
    assert distance(SignSymmetric(model).gradients(x, y), BPTT(model).gradients(x, y)) > 1e-2
    model.network.set_parameters(even)
    assert distance(SignSymmetric(model).gradients(x, y), BPTT(model).gradients(x, y)) < SAME


def test_kolen_pollack_feedback_approaches_the_weights_by_a_known_factor() -> None:
    x, y = data()
    rule = KolenPollack(model_of("deep"), feedback_decay=3.0, optimizer=SGD(0.01))
    first = {name: rule.model.network.parameters[name] - value for name, value in rule.feedback.items()}
    for _ in range(6):
        rule.step(x, y)
    for name, value in rule.feedback.items():
        gap = rule.model.network.parameters[name] - value
        np.testing.assert_allclose(gap, first[name] * (1 - 0.01 * 3.0) ** 6, atol=1e-12)


def test_a_weight_mirror_approaches_weights_that_are_held() -> None:
    """After 400 updates of rate 0.02 the first gap has shrunk to e^-8; what is left is the noise of the estimate.

    That noise has the relative size √(η n/(2 rows)) = 0.05 for n = 8 sources: 0.25 is five times as much.
    """
    x, y = data()
    rule = WeightMirror(model_of("deep"), optimizer={"name": "sgd", "learning_rate": 1e-12}, seed=1)
    for _ in range(400):
        rule.step(x, y)
    for name, value in rule.feedback.items():
        weight = rule.model.network.parameters[name]
        assert np.linalg.norm(value - weight) < 0.25 * np.linalg.norm(weight)
    before = WeightMirror(model_of("deep"), seed=1).feedback
    assert all(np.linalg.norm(before[n] - value) > 0.5 * np.linalg.norm(value) for n, value in rule.feedback.items())


def test_full_credit_refuses_feedback_that_bypasses_the_layers() -> None:
    for spatial in ("direct", "target", "local", "modulator"):
        with pytest.raises(IncompatibleError, match="bypasses"):
            LearningRule(model_of("alif"), temporal="full", spatial=spatial)


def test_a_modulator_scales_the_traces_of_every_neuron() -> None:
    """Twice the reward, twice the change; the loss has no part in it; no reward, no change."""
    x, _ = data()
    network = stack(ALIFCell(beta=0.3), task_type="regression")("numpy")
    rule = LearningRule(Evaluator(network), temporal="neuron", spatial="modulator")
    reward = np.random.default_rng(0).standard_normal((3, 14, 1)) * np.ones(OUTPUTS)
    one, two, none = (rule.gradients(x, factor * reward) for factor in (1.0, 2.0, 0.0))
    assert distance(two, {name: 2 * value for name, value in one.items()}) < SAME
    assert all(np.abs(value).max() == 0 for value in none.values())


# FPTT.


def test_fptt_without_its_regulariser_is_the_online_rule_of_single_steps() -> None:
    x, y = data()
    states = []
    for make in (lambda m: FPTT(m, alpha=0.0, optimizer=SGD(0.1)),
                 lambda m: LearningRule(m, temporal="none", online=True, optimizer=SGD(0.1)),
                 lambda m: FPTT(m, alpha=0.5, optimizer=SGD(0.1))):  # fmt: skip
        rule = make(model_of("alif"))
        rule.step(x, y)
        states.append(rule.model.network.parameters)
    assert distance(states[0], states[1]) < SAME
    assert distance(states[2], states[1]) > 1e-6


@pytest.mark.parametrize("gradient", [None, "eprop"])
def test_fptt_equals_its_recursion(gradient: str | None) -> None:
    """W, W̄ and λ stepped by hand, with the gradient of each step from an online rule without the regulariser."""
    x, y = data(batch=2, steps=5)
    alpha, rate = 0.4, 0.3
    rule = FPTT(model_of("alif"), alpha=alpha, gradient=gradient, optimizer=SGD(rate))
    rule.step(x, y)
    model = model_of("alif")
    plain = LearningRule(model, temporal="neuron" if gradient else "none", online=True, optimizer="naive")
    stream = plain.stream(batch_size=2)
    w = model.network.parameters
    mean, dual = dict(w), {name: 0 * value for name, value in w.items()}
    for t in range(5):
        model.network.set_parameters(w)
        stream.observe(x[:, t], y)
        after = model.network.parameters
        # A stream weighs a step with 1, a sequence with 1/T.
        step = {name: (w[name] - after[name]) / 5 for name in w}
        w_next = {n: w[n] - rate * (step[n] + alpha * (w[n] - mean[n]) - dual[n] / 2) for n in w}
        dual = {n: dual[n] - alpha * (w_next[n] - mean[n]) for n in w}
        mean = {n: (mean[n] + w_next[n]) / 2 - dual[n] / (2 * alpha) for n in w}
        w = w_next
    assert distance(rule.model.network.parameters, w) < 1e-11
    assert distance({n: rule.state()[f"fptt_mean/{n}"] for n in w}, mean) < 1e-11


def test_fptt_refuses_what_it_cannot_hold() -> None:
    with pytest.raises(IncompatibleError, match="within a sequence"):
        FPTT(model_of("alif"), online=False)
    with pytest.raises(IncompatibleError, match="known only at the end"):
        FPTT(model_of("alif"), gradient="bptt")


# Truncated BPTT.


def test_truncated_bptt_equals_bptt_where_a_window_holds_the_sequence() -> None:
    x, y = data()
    model = model_of("feedback")
    exact = BPTT(model).gradients(x, y)
    assert distance(TruncatedBPTT(model, window=14).gradients(x, y), exact) < SAME
    assert distance(TruncatedBPTT(model, window=50).gradients(x, y), exact) < SAME
    assert distance(TruncatedBPTT(model, window=5).gradients(x, y), exact) > 1e-2


def test_windows_of_one_step_are_the_rule_without_temporal_credit() -> None:
    x, y = data()
    for name in ("alif", "deep"):
        model = model_of(name)
        found = TruncatedBPTT(model, window=1).gradients(x, y)
        assert distance(found, LearningRule(model, temporal="none").gradients(x, y)) < SAME


def test_a_window_s_gradient_equals_bptt_from_the_state_that_it_begins_with() -> None:
    """A feed-forward layer whose state is cut: the second window alone, with the first window's last spikes as data."""
    x, y = data()
    model = Evaluator(LIF(6, 3, inputs=4, dtype="float64", seed=1, threshold=0.5))
    alive(model, x)
    total = TruncatedBPTT(model, window=7).gradients(x, y)
    inputs, target, mask = model.batch(x, y)
    network, expected = model.network, None
    rule, start = BPTT(model), None
    for piece in (slice(0, 7), slice(7, 14)):
        trajectory = network.forward(network.values, inputs[piece], start)
        signals = model.judge(trajectory, target, mask).signals
        halved = {key: value / 2 for key, value in signals.items()}
        found = rule.adjoint(network.values, {"feedback": {}}, trajectory, halved)
        expected = found if expected is None else {name: expected[name] + found[name] for name in found}
        start = trajectory.end()
    assert expected is not None
    assert distance(total, expected) < SAME
