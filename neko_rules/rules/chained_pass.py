"""Chained pass: sequences gone through in windows, each by one compiled loop, with what goes on from one to the next.

What ``Online`` and ``Windowed`` do where there are chains of ``linking_window``. All of it lies in host memory as NumPy
arrays, whatever the backend: of a window of a few time steps, operations of a library would be most of the time.
"""

from __future__ import annotations

from functools import lru_cache, reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from neko_rules.backend import Array, get_backend
from neko_rules.credit.spans import Rate, Spans
from neko_rules.kernels.host import BUFFERS, HostBackend, handed_over
from neko_rules.layers.forward import Z, at_rest
from neko_rules.layers.graph import INPUT
from neko_rules.rules.chained import Given, Ran, Window

if TYPE_CHECKING:
    from neko_rules.rules.learning_rule import LearningRule
    from neko_rules.rules.linking import Linked
    from neko_rules.rules.updates import Updates


class Passed(NamedTuple):
    """What a pass met on the way, in host memory.

    Attributes:
        loss: its sum over what is counted, and how much that is.
        outputs: what the loss observes, [time, batch, n_out].
        spikes: how often every neuron fired, [batch, neuron]; of no population if nobody asks.
    """

    loss: tuple[np.ndarray, np.ndarray]
    outputs: np.ndarray
    spikes: dict[str, np.ndarray]


def chained_pass(
    rule: LearningRule, host: HostBackend, by_step: dict[str, Array], size: int, spans: Spans | None, updates: Updates
) -> Passed | None:
    """Go through all windows; None where there is no chain for them, or no use for one.

    Args:
        rule: whose gradients they are.
        host: its backend.
        by_step: inputs, targets, masks and weights of every time step, in backend arrays.
        size: time steps of a window; the last may be shorter.
        spans: how traces go on; None where credit ends with every window.
        updates: the parameters, and what becomes of every gradient.
    """
    chains, network = rule.chains(), rule.model.network
    x, target, mask, share = (host.host(by_step[key]) for key in ("x", "target", "mask", "weight"))
    steps, examples, features = x.shape
    if not chains.serves(rule, steps, examples, features):
        return None
    memory: Any = get_backend("numpy")
    window = Window(() if spans is None else spans.filters)
    carried = Carried(rule, host, spans, examples, features)
    dtype = np.dtype(network.dtype).type
    total, count = dtype(0), dtype(0)
    outputs: list[np.ndarray] = []
    fired: dict[str, np.ndarray] = {}
    inputs = x.transpose(1, 0, 2)
    for number, first in enumerate(range(0, steps, size)):
        last = min(first + size, steps)
        carried.begin(last - first, last == steps)
        counted = mask[first:last]
        some = counted.sum()
        weight = share[first:last].sum() / max(some, 1.0) * counted
        given = Given(
            updates.values,
            updates.feedback,
            network.constants_with(updates.values),
            inputs[:, first:last],
            target[first:last],
            counted,
            weight,
            "sequence",
        )
        ran = chains.ran(rule, memory, given, window, carried, carried.begun and spans is not None)
        if ran is None:
            return None
        carried.take(ran, x[last - 1])
        total, count = total + dtype(ran.loss), count + dtype(some)
        outputs.append(ran.scores)
        for name, sums in ran.spikes.items():
            fired[name] = fired[name] + sums[0] if name in fired else sums[0]
        updates.take(number, ran.gradients)
    return Passed((np.asarray(total), np.asarray(count)), np.concatenate(outputs), fired)


_CONSTANT = frozenset({"decay", "kappa", "leak", "kept", "powers"})
"""What of a trace is the same in every window of so many time steps."""


class Carried:
    """What is carried from window to window.

    Args:
        rule: the rule.
        host: its backend.
        spans: how traces go on; None where credit ends with every window.
        examples: of a batch.
        features: of the input.
    """

    def __init__(
        self, rule: LearningRule, host: HostBackend, spans: Spans | None, examples: int, features: int
    ) -> None:
        network = rule.model.network
        self.graph, self.dtype, self.spans, self.examples = network.graph, network.dtype, spans, examples
        self.begun, self.last, self.steps = False, False, 0
        rest = at_rest(rule.nx, self.graph, examples, features, self.dtype)
        self._states = {name: {key: host.host(each) for key, each in of.items()} for name, of in rest.items()}
        # States of two windows ago, which nobody needs.
        self._spare: dict[tuple[str, str], np.ndarray] = {}
        self._delayed = [connection for connection in self.graph.connections if connection.delay]
        self._sent: dict[str, np.ndarray] = {}
        self._sums: dict[str, np.ndarray] = {}
        self._filtered: dict[str, np.ndarray] = {}
        if spans is not None:
            traces = rule.stepwise.start(examples)
            for name, rate in spans.rates.items():
                self._sums[name] = host.host(traces[name][rate.state])[:, :, 0]
                if f"{name} filtered" in traces:
                    shape = traces[f"{name} filtered"]["trace"].shape
                    self._filtered[name] = BUFFERS.empty(tuple(shape), self.dtype)

    def begin(self, steps: int, last: bool) -> None:
        """A window begins.

        Args:
            steps: its time steps.
            last: whether nobody asks for traces after it.
        """
        self.steps, self.last = steps, last
        self._sent.clear()

    def sent(self, of: str) -> np.ndarray:
        """What was sent before and meets the first δ of a parameter: [batch, pre]."""
        found = self._sent.get(of)
        if found is None:
            parts = []
            if of in self._sums:
                _, leak, gain = self._spans.rates[of]
                parts.append(leak / gain * self._sums[of])
            parts += [self._states[c.source][Z] for c in self._delayed if c.weight == of]
            found = self._sent[of] = handed_over(reduce(np.add, parts), self.dtype)
        return found

    @property
    def _spans(self) -> Spans:
        assert self.spans is not None, "a chain is told of traces where there are any"
        return self.spans

    def handed(self, links: Linked) -> dict[str, Any]:
        """What a chain takes beside ``constants``, and arrays that it fills, by argument."""
        graph, examples, handed = self.graph, self.examples, links.handed
        found: dict[str, Any] = {}
        for argument, (name, key) in handed.starts.items():
            found[argument] = handed_over(self._states[name][key], self.dtype)
        for argument, of in handed.ends.items():
            spare = self._spare.pop(of, None)
            size = graph.populations[of[0]].size
            found[argument] = np.empty((examples, size), self.dtype) if spare is None else spare
        for name in handed.flags:
            found[name] = self.begun if name == "begun" else not self.last
        for argument, (what, parameter) in handed.traces.items():
            if what == "begin":
                found[argument] = self.sent(parameter)
            elif what == "vector":
                _, leak, gain = self._spans.rates[parameter]
                # What was sent before acts as one more input at the first step, here as in the gradient.
                before = gain * leak ** (self.steps - 1.0) * self.sent(parameter)
                found[argument] = handed_over(before, self.dtype)
            elif what == "filtered":
                found[argument] = self._filtered[parameter]
        return found

    def constants(self, links: Linked) -> dict[str, Any]:
        """What a chain takes that follows from how traces go on alone, by argument."""
        return {
            argument: self._of_rate(what, of)
            for argument, (what, of) in links.handed.traces.items()
            if what in _CONSTANT
        }

    def _of_rate(self, what: str, of: str) -> Any:
        """An argument of a chain that follows from how the traces of a parameter or population go on alone."""
        spans = self._spans
        if what == "powers":
            later = any(c.weight == of for c in self._delayed)
            return _constant("later powers" if later else "powers", self.steps, 0.0, spans.rates[of], self.dtype)
        return _constant(what, self.steps, spans.filter_of(of), spans.rate_of(of), self.dtype)

    def take(self, ran: Ran, inputs: np.ndarray) -> None:
        """A window is over.

        Args:
            ran: what its chain found.
            inputs: of its last time step, [batch, feature].
        """
        self._states[INPUT] = {Z: inputs}
        for argument, (name, key) in ran.links.handed.ends.items():
            if self.begun:
                self._spare[name, key] = self._states[name][key]
            self._states[name][key] = ran.handed[argument]
        self.begun = True
        if self.spans is None or self.last:
            return
        vectors = {of: ran.handed[name] for name, (what, of) in ran.links.handed.traces.items() if what == "vector"}
        for name, rate in self.spans.rates.items():
            if name in vectors:
                self._sums[name] = vectors[name]
            else:
                ones = _constant("ones", self.steps, 0.0, rate, "float64")
                self._sums[name] = (rate.leak**self.steps * self._sums[name] + ones).astype(self.dtype, copy=False)


@lru_cache(maxsize=256)
def _constant(what: str, steps: int, kappa: float, rate: Rate, dtype: str) -> Any:
    """What follows for a window from how a trace goes on alone, as a chain takes it: not to be written to.

    Args:
        what: which number, or which numbers by time step.
        steps: time steps of the window.
        kappa: of what filters the traces; not looked at for others.
        rate: of the traces.
        dtype: of the network.
    """
    from neko_rules.kernels.filtering import powers

    _, leak, gain = rate
    sent = powers(leak, steps, gain)
    known = {
        "decay": kappa**steps,
        "kappa": kappa,
        "leak": leak,
        "kept": powers(kappa, steps, gain),
        "powers": sent,
        "later powers": sent[1:],
        "ones": sent.sum(),
    }
    found = np.asarray(known[what], dtype)
    return found if found.ndim else found[()]
