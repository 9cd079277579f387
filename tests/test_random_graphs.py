"""Random graphs: every point of credit assignment against an independent network differentiated by autograd.

Sampled are graphs of 1 to 5 populations of 1 to 5 neurons: all cells, with numbers or one number per neuron; all
resets, detached or not; refractory periods; skip connections, delayed connections up, down and from the input, two
connections between the same populations, autapses or values stored where a masked diagonal ignores them; an output
anywhere in the graph; all poolings; classification with unlabelled steps and regression; firing-rate regularisers;
sequences down to one step and batches down to one sample. Weights are drawn wide enough that many neurons spike. A
population that no error reaches has a gradient of zero, and has to have it here too; how many references are not zero
is counted. Every other graph goes by compiled loops.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from independent_network import (
    INPUT,
    SPIKING,
    Edge,
    IndependentNetwork,
    Loss,
    Neuron,
    Population,
    Tensors,
    mean_loss,
    pooled,
    rate_penalty,
    tensor,
)

from neko_rules import Evaluator, FiringRate, LearningRule, Network
from neko_rules.credit.feedback import carriers
from neko_rules.kernels.host import unfused
from neko_rules.layers.integrate_and_fire import RESETS, ALIFCell, IFCell, LIFCell
from neko_rules.layers.rate import LeakyReadoutCell, ReLUCell, TanhCell
from neko_rules.layers.shared_weights import SharedWeights
from neko_rules.optimizers import SGD

SEEDS = range(60)
CHUNKS = [SEEDS[first : first + 10] for first in range(0, len(SEEDS), 10)]
POINTS = [("full", "exact"), *((t, s) for t in ("layer", "neuron") for s in ("filtered", "instantaneous"))]
CELLS = {"lif": LIFCell, "alif": ALIFCell, "if": IFCell, "tanh": TanhCell, "relu": ReLUCell, "linear": LeakyReadoutCell}
POOLINGS = ("sequence", "last", "mean", "max")
TOLERANCE = 1e-9
DEAD = 1e-9
"""A gradient whose largest entry is below this counts as zero."""
RATE_TARGET, RATE_STRENGTH = 150.0, 3.0


@dataclass(frozen=True)
class Case:
    """One random graph twice, with the same parameters and data."""

    model: Evaluator
    reference: IndependentNetwork
    parameters: Tensors
    x: np.ndarray
    y: np.ndarray
    loss: Loss
    regularizers: list[FiringRate]
    pooling: str

    def rule(self, temporal: str, signal: str, spatial: str, **options: Any) -> LearningRule:
        return LearningRule(
            self.model,
            temporal=temporal,
            learning_signal=signal,
            spatial=spatial,
            regularizers=self.regularizers,
            **options,
        )

    def expected(self, temporal: str, signal: str, feedback: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The gradients of the independent network."""
        given = self.parameters, tensor(self.x.transpose(1, 0, 2)), self.loss
        matrices = {name: tensor(value) for name, value in feedback.items()}
        if temporal == "full":
            return self.reference.full_gradients(*given, matrices)
        return self.reference.local_gradients(*given, temporal, signal, matrices)


def random_neuron(rng: np.random.Generator, size: int) -> tuple[Neuron, Any]:
    """Constants for the independent network, and the cell that they describe."""

    def between(low: float, high: float) -> Any:
        return tuple(rng.uniform(low, high, size)) if rng.random() < 0.5 else float(rng.uniform(low, high))

    kind = str(rng.choice(list(CELLS), p=[0.3, 0.35, 0.1, 0.1, 0.05, 0.1]))
    if kind not in SPIKING:
        decay = between(0, 0.9)
        return Neuron(kind, decay), CELLS[kind](membrane_decay=decay)
    shared = {"threshold": between(0.3, 1), "reset": str(rng.choice(RESETS)), "detach_reset": bool(rng.random() < 0.5)}
    silent = rng.integers(0, 3, size).astype(float) * (rng.random() < 0.4)
    own, cell = dict(shared, refractory_steps=silent), dict(shared)
    if silent.any():
        cell["refractory_period"] = tuple(1e-3 * silent)
    if kind != "if":
        own["decay"] = cell["membrane_decay"] = between(0.3, 0.98)
    if kind == "alif":
        own["adaptation_decay"] = cell["adaptation_decay"] = between(0.5, 0.99)
        own["beta"] = cell["beta"] = between(0, 0.5)
    return Neuron(kind, **own), CELLS[kind](**cell)


def random_edges(rng: np.random.Generator, names: list[str]) -> tuple[Edge, ...]:
    ends: list[tuple[str, str, int, bool]] = []
    for i, target in enumerate(names):
        ends += [(INPUT, target, delay, False) for delay in (0, 1) if rng.random() < 0.5]
        for j, source in enumerate(names):
            if j < i and rng.random() < 0.6:
                ends.append((source, target, 0, False))
            if rng.random() < 0.3:
                ends.append((source, target, 1, bool(i == j and rng.random() < 0.5)))
    ends = ends or [(INPUT, names[0], 0, False)]
    shuffled = [ends[place] for place in rng.permutation(len(ends))]
    # Two matrices between the same neurons: currents add up, and so do the errors that come back through both.
    (other,) = rng.spawn(1)
    shuffled += [end for end in shuffled if other.random() < 0.2]
    return tuple(Edge(*end, f"{end[1]}.c{place}.weight") for place, end in enumerate(shuffled))


def thinned(rng: np.random.Generator, edge: Edge, sizes: Mapping[str, int]) -> Edge:
    """One in four without some of its synapses; one in eight with synapses that share three weights."""
    ends = sizes[edge.source], sizes[edge.target]
    drawn = (rng.random(ends) < 0.6).astype(int)
    found = replace(edge, synapses=tuple(map(tuple, drawn.tolist()))) if rng.random() < 0.25 else edge
    (other,) = rng.spawn(1)
    numbers = tuple(map(tuple, other.integers(-1, 3, ends).tolist()))
    return replace(edge, numbers=numbers) if other.random() < 0.125 else found


@dataclass(frozen=True)
class Shared(SharedWeights):
    """A user's own: three weights for all synapses."""

    given: tuple[tuple[int, ...], ...]

    @property
    def weight_shape(self) -> tuple[int, int]:
        return 3, 1

    def numbers(self) -> np.ndarray:
        return np.array(self.given)


def connectivity_of(edge: Edge) -> Any:
    if edge.numbers is not None:
        return Shared(edge.numbers)
    return "dense" if edge.synapses is None else edge.synapses


def random_targets(rng: np.random.Generator, batch: int, steps: int, size: int) -> np.ndarray:
    """Values to regress, or labels of which some are -1, but not all."""
    if rng.random() < 0.5:
        return rng.normal(size=(batch, steps, size))
    y = rng.integers(0, size, (batch, steps))
    if rng.random() < 0.5:
        y[rng.random(y.shape) < 0.4] = -1
        y[0, 0] = max(y[0, 0], 0) if (y == -1).all() else y[0, 0]
    return y


def random_case(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    names = [f"p{place}" for place in range(rng.integers(1, 6))]
    output = str(rng.choice(names)) if rng.random() < 0.3 else names[-1]
    populations, declared = [], {}
    for name in names:
        # An output of one unit would make every cross-entropy 0, and every gradient with it.
        size, bias = int(rng.integers(1, 5)) + (name == output), bool(rng.random() < 0.7)
        neuron, cell = random_neuron(rng, size)
        populations.append(Population(name, size, bias, neuron))
        declared[name] = {"cell": cell, "size": size, "bias": bias}
    edges = random_edges(rng, names)
    pooling = str(rng.choice(POOLINGS))
    inputs, batch = int(rng.integers(1, 4)), int(rng.choice([1, 3]))
    sizes, (other,) = {INPUT: inputs, **{p.name: p.size for p in populations}}, rng.spawn(1)
    edges = tuple(thinned(other, edge, sizes) for edge in edges)
    steps = int(rng.choice([1, 2, 5, 9], p=[0.1, 0.2, 0.3, 0.4]))
    x = 2 * rng.normal(size=(batch, steps, inputs))
    y = random_targets(rng, batch, steps if pooling == "sequence" else 1, declared[output]["size"])
    network = Network(
        {str(name): declared[name] for name in rng.permutation(names)},
        [
            {
                "source": e.source,
                "target": e.target,
                "delay": e.delay,
                "autapses": e.autapses,
                "label": f"c{place}",
                "connectivity": connectivity_of(e),
            }
            for place, e in enumerate(edges)
        ],
        output,
        inputs=inputs,
        dtype="float64",
        readout=pooling,
        task_type="regression" if y.ndim == 3 else "classification",
        seed=seed,
    )
    # Whole matrices: what is stored where there is no synapse must have no effect.
    scales = {name: 0.3 if name.endswith("bias") else 1.0 for name in network.parameters}
    values = {name: scales[name] * rng.normal(size=value.shape) for name, value in network.parameters.items()}
    network.set_parameters(values)
    regularized = [p.name for p in populations if p.neuron.kind in SPIKING] if rng.random() < 0.5 else []

    def loss(z: Tensors) -> torch.Tensor:
        total = mean_loss(pooled(z[output], pooling), y)
        for name in regularized:
            total = total + rate_penalty(z[name], RATE_TARGET, RATE_STRENGTH)
        return total

    return Case(
        Evaluator(network, loss="mse" if y.ndim == 3 else "sparse_categorical_crossentropy"),
        IndependentNetwork(tuple(populations), edges, output),
        {name: tensor(value) for name, value in values.items()},
        x,
        y,
        loss,
        [FiringRate(target=RATE_TARGET, strength=RATE_STRENGTH)] if regularized else [],
        pooling,
    )


def compare(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], where: str) -> list[bool]:
    """Assert equality relative to the largest entry; whether each reference is not zero."""
    assert set(found) == set(expected), where
    for name, value in expected.items():
        error, size = np.abs(found[name] - value).max(), np.abs(value).max()
        assert error <= TOLERANCE * (1e-6 + size), f"{where}, {name}: off by {error:.1e}, largest entry {size:.1e}"
    return [bool(np.abs(value).max() > DEAD) for value in expected.values()]


def engine(seed: int) -> AbstractContextManager[None]:
    """Every other graph by compiled loops, each of which takes a second to compile, and every other by operations."""
    return nullcontext() if seed % 2 else unfused()


@pytest.mark.parametrize("seeds", CHUNKS, ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")
def test_gradients_of_every_credit_equal_the_independent_network_s(seeds: range) -> None:
    nonzero: dict[tuple[str, str, str], list[bool]] = {}
    for seed in seeds:
        case = random_case(seed)
        for spatial in ("symmetric", "random") if carriers(case.model.network.graph) else ("symmetric",):
            for temporal, signal in POINTS:
                rule = case.rule(temporal, signal, spatial)
                expected = case.expected(temporal, signal, rule.feedback)
                where = f"seed {seed}, {temporal}, {signal}, {spatial}"
                with engine(seed):
                    found = compare(rule.gradients(case.x, case.y), expected, where)
                nonzero.setdefault((temporal, signal, spatial), []).extend(found)
    assert len(nonzero) == 2 * len(POINTS)
    shares = {point: np.mean(found) for point, found in nonzero.items()}
    assert min(shares.values()) > 0.3, f"too few references that are not zero: {shares}"


ABOVE_THE_OUTPUT = (1001, 1003, 1048)
"""Graphs with a population above the output, that is penalised, that direct feedback reaches, or both."""


@pytest.mark.parametrize("seed", [*ABOVE_THE_OUTPUT, *SEEDS[::6]])
def test_forward_in_time_is_backward_in_time(seed: int) -> None:
    """By operations and by loops, of every point and of direct feedback."""
    points = [(*point, "symmetric") for point in POINTS if point[0] != "full"]
    if carriers(random_case(seed).model.network.graph):
        points += [(temporal, signal, "direct") for temporal, signal, _ in points]
    assert len(points) == 8 or seed not in ABOVE_THE_OUTPUT
    for temporal, signal, spatial in points:
        for computed in (unfused, nullcontext):
            case = random_case(seed)
            found = []
            for evaluation in ("adjoint", "traces"):
                rule = LearningRule(
                    case.model,
                    temporal=temporal,
                    learning_signal=signal,
                    spatial=spatial,
                    evaluation=evaluation,
                    regularizers=case.regularizers,
                )
                with computed():
                    found.append(rule.gradients(case.x, case.y))
            compare(found[1], found[0], f"seed {seed}, {temporal}, {signal}, {spatial}, {computed.__name__}")


@pytest.mark.parametrize("seeds", CHUNKS, ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")
def test_losses_equal_the_independent_network_s(seeds: range) -> None:
    for seed in seeds:
        case = random_case(seed)
        z = case.reference.run(case.parameters, tensor(case.x.transpose(1, 0, 2)))
        expected = mean_loss(pooled(z[case.reference.output], case.pooling), case.y).item()
        with engine(seed):
            found = case.model.evaluate(case.x, case.y)["loss"]
        assert found == pytest.approx(expected, rel=1e-10, abs=1e-10), seed


def traits(case: Case) -> set[str]:
    """What a case has that a rule could get wrong."""
    populations, edges = case.reference.populations, case.reference.edges
    place = {p.name: number for number, p in enumerate(populations)}
    found = {f"{len(populations)} populations", case.pooling, f"{case.x.shape[1]} steps", f"batch of {len(case.x)}"}
    for p in populations:
        found |= {p.neuron.kind, "bias" if p.bias else "no bias"}
        if p.neuron.kind in SPIKING:
            found |= {f"reset {p.neuron.reset}", f"reset detached: {p.neuron.detach_reset}"}
            found |= {"refractory"} if np.any(p.neuron.refractory_steps) else set()
    ends = [replace(e, weight="", synapses=None, numbers=None) for e in edges]
    twins = [e for e, between in zip(edges, ends, strict=True) if ends.count(between) > 1]
    for e in edges:
        if e.source == INPUT:
            found.add(f"input delayed by {e.delay}")
        elif e.source == e.target:
            found.add("autapses" if e.autapses else "no autapses")
            found |= {"sparse, of a population with itself"} if e.synapses else set()
            found |= {"shared, of a population with itself"} if e.numbers else set()
        elif e.delay:
            found.add("delayed up" if place[e.source] < place[e.target] else "delayed down")
        else:
            found.add("skip" if place[e.target] - place[e.source] > 1 else "next")
        found |= {"sparse"} if e.synapses else set()
        found |= {"shared"} if e.numbers else set()
        found |= {"twins, of a population with itself" if e.source == e.target else "twins"} if e in twins else set()
    found.add("regression" if case.y.ndim == 3 else "unlabelled" if (case.y == -1).any() else "labelled")
    found.add("regularised" if case.regularizers else "not regularised")
    found.add("output on top" if case.reference.output == populations[-1].name else "output below")
    return found


def test_the_sample_holds_every_trait_at_least_three_times() -> None:
    counts: dict[str, int] = {}
    for seed in SEEDS:
        for trait in traits(random_case(seed)):
            counts[trait] = counts.get(trait, 0) + 1
    wanted = {f"{n} populations" for n in range(1, 6)} | {f"{n} steps" for n in (1, 2, 5, 9)}
    wanted |= {"batch of 1", "batch of 3", "bias", "no bias", "refractory", *CELLS, *POOLINGS}
    wanted |= {*(f"reset {reset}" for reset in RESETS), "reset detached: True", "reset detached: False"}
    wanted |= {"input delayed by 0", "input delayed by 1", "autapses", "no autapses", "skip", "next"}
    wanted |= {"twins", "twins, of a population with itself", "sparse", "sparse, of a population with itself"}
    wanted |= {"shared", "shared, of a population with itself"}
    wanted |= {"delayed up", "delayed down", "regression", "labelled", "unlabelled"}
    wanted |= {"regularised", "not regularised", "output on top", "output below"}
    assert set(counts) == wanted
    assert min(counts.values()) >= 3, counts


def test_one_step_of_adaptive_feedback_equals_the_update_by_hand() -> None:
    """W ← W - η(λ + μ[W has feedback]) W + u, b ← b + u, B ← B - η(λ + μ) B + u with u = -η ∂E/∂W."""
    rate, decay, feedback_decay = 0.05, 0.3, 0.7
    cases = [case for case in map(random_case, SEEDS) if carriers(case.model.network.graph)][:10]
    assert len(cases) == 10
    moved = []
    for place, case in enumerate(cases):
        temporal, signal = POINTS[place % len(POINTS)]
        options = {"optimizer": SGD(rate), "weight_decay": decay, "feedback_decay": feedback_decay}
        rule = case.rule(temporal, signal, "adaptive", **options)
        first = rule.feedback
        gradients = case.expected(temporal, signal, first)
        moved += [np.abs(gradients[name]).max() > DEAD for name in first]
        with engine(place):
            rule.step(case.x, case.y)
        stepped = rule.model.network.parameters
        for name, value in case.parameters.items():
            shrink = (decay if name.endswith(".weight") else 0.0) + (feedback_decay if name in first else 0.0)
            by_hand = value.numpy() * (1 - rate * shrink) - rate * gradients[name]
            np.testing.assert_allclose(stepped[name], by_hand, rtol=TOLERANCE, atol=1e-12, err_msg=name)
        for name, matrix in rule.feedback.items():
            by_hand = first[name] * (1 - rate * (decay + feedback_decay)) - rate * gradients[name]
            np.testing.assert_allclose(matrix, by_hand, rtol=TOLERANCE, atol=1e-12, err_msg=name)
            assert np.abs(matrix - stepped[name]).max() > 1e-3, "feedback equal to its weight would prove little"
    assert np.mean(moved) > 0.3
