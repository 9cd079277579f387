"""A simulator of NIR graphs that knows nothing of the package: every neuron by its matrix exponential, step by step."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
from scipy.linalg import expm

STATES = {"LIF": 1, "LI": 1, "IF": 1, "I": 1, "CubaLIF": 2, "CubaLI": 2, "Threshold": 1}
"""Variables with a memory: the potential last."""


def equation(node: Any, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A, b and c of ds/dt = A s + b u + c of neuron k for a held input u."""
    p = {name: float(np.ravel(value)[k]) for name, value in vars(node).items() if isinstance(value, np.ndarray)}
    kind = type(node).__name__
    if kind in ("IF", "I"):
        return np.zeros((1, 1)), np.array([p["r"]]), np.zeros(1)
    if kind in ("LIF", "LI"):
        return np.array([[-1 / p["tau"]]]), np.array([p["r"] / p["tau"]]), np.array([p["v_leak"] / p["tau"]])
    slow, fast = 1 / p["tau_mem"], 1 / p["tau_syn"]
    matrix = np.array([[-fast, 0.0], [p["r"] * slow, -slow]])
    return matrix, np.array([p["w_in"] * fast, 0.0]), np.array([0.0, p["v_leak"] * slow])


def transition(node: Any, k: int, dt: float) -> np.ndarray:
    """The matrix by which (s, u, 1) becomes s after a step, by the exponential of the equation."""
    A, b, c = equation(node, k)
    n = len(A)
    whole = np.zeros((n + 2, n + 2))
    whole[:n, :n], whole[:n, n], whole[:n, n + 1] = A, b, c
    found: np.ndarray = expm(whole * dt)[:n]
    return found


class Simulator:
    """A graph whose neurons are updated in an order, those after them in the same step, those before one step later.

    Args:
        graph: nodes and edges.
        dt: seconds.
        order: names of its neurons.
        together: whether the two equations of a Cuba neuron are solved as one; else one after the other, each for what
            drives it held at its new value.
    """

    def __init__(self, graph: Any, dt: float, order: list[str], together: bool = False) -> None:
        self.graph, self.order, self.together = graph, order, together
        self.transitions = {
            name: np.array([transition(graph.nodes[name], k, dt) for k in range(self._size(name))])
            for name in order
            if type(graph.nodes[name]).__name__ != "Threshold"
        }
        if not together:
            for name, found in self.transitions.items():
                node = graph.nodes[name]
                if found.shape[1] == 2:
                    for k, each in enumerate(found):
                        alone = nir.LI(tau=node.tau_mem.ravel(), r=node.r.ravel(), v_leak=node.v_leak.ravel())
                        kept, driven, constant = transition(alone, k, dt)[0]
                        # v after i: driven by the new i, which is a combination of the old i and the input.
                        each[1] = driven * each[0] + np.array([0.0, kept, 0.0, constant])

    def _size(self, name: str) -> int:
        node = self.graph.nodes[name]
        return int(np.size(node.threshold if hasattr(node, "threshold") else node.r))

    def run(self, x: np.ndarray, start: dict[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
        """Outputs of all neurons and of the Output node, [time, batch, neuron], of inputs [batch, time, feature]."""
        batch, steps, _ = x.shape
        state = {
            name: np.zeros((STATES[type(self.graph.nodes[name]).__name__], batch, self._size(name)))
            for name in self.order
        }
        for name, given in (start or {}).items():
            state[name][-1] += given
        sent = {name: np.zeros((batch, self._size(name))) for name in self.order}
        outputs = {name: [] for name in (*self.order, "output")}  # type: ignore[var-annotated]
        into: dict[str, list[str]] = {name: [] for name in self.graph.nodes}
        for source, target in self.graph.edges:
            into[target].append(source)
        [last] = [name for name, node in self.graph.nodes.items() if isinstance(node, nir.Output)]
        [first] = [name for name, node in self.graph.nodes.items() if isinstance(node, nir.Input)]
        for t in range(steps):
            sent[first] = x[:, t]
            late = {name: value.copy() for name, value in sent.items()} if t else None
            for name in self.order:
                u = sum(self._value(source, into, sent, late, x, t) for source in into[name])
                sent[name], state[name] = self._stepped(name, state[name], np.reshape(u, (batch, -1)))
                outputs[name].append(sent[name])
            total = sum(self._value(source, into, sent, late, x, t) for source in into[last])
            outputs["output"].append(np.reshape(total, (batch, -1)))
        return {name: np.array(values) for name, values in outputs.items()}

    def _stepped(self, name: str, s: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        node = self.graph.nodes[name]
        if isinstance(node, nir.Threshold):
            return (u > node.threshold.ravel()).astype(float), s
        matrix, n = self.transitions[name], len(s)
        after = np.einsum("kij,jbk->ibk", matrix[:, :, :n], s)
        after += matrix[:, :, n].T[:, None] * u + matrix[:, :, n + 1].T[:, None]
        if not hasattr(node, "v_threshold"):
            return after[-1], after
        z = (after[-1] > node.v_threshold.ravel()).astype(float)
        after[-1] = np.where(z > 0, node.v_reset.ravel(), after[-1])
        return z, after

    def _value(
        self,
        name: str,
        into: dict[str, list[str]],
        sent: dict[str, np.ndarray],
        late: dict[str, np.ndarray] | None,
        x: np.ndarray,
        t: int,
    ) -> np.ndarray:
        """What a node sends: of a neuron its last output, of another what it makes of what comes in."""
        if name in sent:
            return sent[name]
        node = self.graph.nodes[name]
        if isinstance(node, nir.Delay):
            # Of neurons that have had their turn in this step, or of the data, the value of the step before.
            [source] = into[name]
            if source in self.order:
                return np.zeros_like(sent[source]) if late is None else late[source]
            return x[:, t - 1] if t else np.zeros_like(x[:, 0])
        u = sum(self._value(source, into, sent, late, x, t) for source in into[name])
        if isinstance(node, nir.Conv2d):
            return convolved(node, np.reshape(u, (len(u), node.weight.shape[1], *node.input_shape)))
        if isinstance(node, nir.AvgPool2d):
            return averaged(node, np.reshape(u, (len(u), *node.input_type["input"])))
        if isinstance(node, nir.Flatten):
            return np.reshape(u, (len(u), -1))
        if isinstance(node, nir.Scale):
            return u * node.scale
        assert isinstance(node, nir.Linear | nir.Affine), node
        return u @ node.weight.T + getattr(node, "bias", 0.0)


def convolved(node: Any, pictures: np.ndarray) -> np.ndarray:
    """The sum over a window, place by place."""
    filters, _, rows, columns = node.weight.shape
    (up, right), (around, beside) = node.stride, node.padding
    padded = np.pad(pictures, ((0, 0), (0, 0), (around, around), (beside, beside)))
    high, wide = (padded.shape[2] - rows) // up + 1, (padded.shape[3] - columns) // right + 1
    found = np.zeros((len(pictures), filters, high, wide))
    for r in range(high):
        for c in range(wide):
            seen = padded[:, :, r * up : r * up + rows, c * right : c * right + columns]
            found[:, :, r, c] = np.tensordot(seen, node.weight, ((1, 2, 3), (1, 2, 3))) + node.bias
    return found


def averaged(node: Any, pictures: np.ndarray) -> np.ndarray:
    """The mean of a patch, place by place."""
    (rows, columns), (down, across) = node.kernel_size, node.stride
    high, wide = (pictures.shape[2] - rows) // down + 1, (pictures.shape[3] - columns) // across + 1
    found = np.zeros((*pictures.shape[:2], high, wide))
    for r in range(high):
        for c in range(wide):
            patch = pictures[:, :, r * down : r * down + rows, c * across : c * across + columns]
            found[:, :, r, c] = patch.mean(axis=(2, 3))
    return found
