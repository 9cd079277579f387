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
from neko_rules.kernels.host import BUFFERS, HostBackend, handed_over, host_of
from neko_rules.layers.forward import NetworkState, Z, at_rest
from neko_rules.layers.graph import INPUT
from neko_rules.rules.chained import Given, Ran, Window

if TYPE_CHECKING:
    from neko_rules.credit.stepwise import State
    from neko_rules.rules.learning_rule import LearningRule
    from neko_rules.rules.linked import Linked
    from neko_rules.rules.updates import Updates


class Begin(NamedTuple):
    """Where a sequence is that a pass goes on with, in backend arrays; nothing of it is changed.

    Attributes:
        states: of the network.
        credit: traces.
    """

    states: NetworkState
    credit: State


class Passed(NamedTuple):
    """What a pass met on the way, in host memory.

    Attributes:
        loss: its sum over what is counted, and how much that is.
        last: the same of the last window alone.
        outputs: what the loss observes, [time, batch, n_out].
        spikes: how often every neuron fired, [batch, neuron]; of no population if nobody asks.
        states: of the network in the end.
        credit: traces in the end; anything where the sequence ends.
    """

    loss: tuple[np.ndarray, np.ndarray]
    last: tuple[np.ndarray, np.ndarray]
    outputs: np.ndarray
    spikes: dict[str, np.ndarray]
    states: dict[str, dict[str, np.ndarray]]
    credit: dict[str, dict[str, np.ndarray]]


def host_for_chains(rule: LearningRule, inputs: Array) -> HostBackend | None:
    """The rule's backend, if there may be chains for sequences [time, batch, feature] and they are worth compiling."""
    host = host_of(rule.nx)
    return host if host is not None and rule.chains().serves(rule, *inputs.shape) else None


def chained_pass(
    rule: LearningRule,
    host: HostBackend,
    by_step: dict[str, Array],
    size: int,
    spans: Spans | None,
    updates: Updates,
    begin: Begin | None = None,
    ends: bool = True,
) -> Passed | None:
    """Go through all windows; None where there is no chain for one of them.

    Args:
        rule: whose gradients they are.
        host: its backend, of ``host_for_chains``.
        by_step: inputs, targets, masks and weights of every time step, in backend arrays.
        size: time steps of a window; the last may be shorter.
        spans: how traces go on; None where credit ends with every window.
        updates: the parameters, and what becomes of every gradient.
        begin: what came before; None for nothing.
        ends: whether nobody asks for traces after the last window.
    """
    chains, network = rule.chains(), rule.model.network
    x, target, mask, share = (host.host(by_step[key]) for key in ("x", "target", "mask", "weight"))
    steps, examples, features = x.shape
    numpy: Any = get_backend("numpy")
    window = Window(() if spans is None else spans.filters)
    carried = Carried(rule, host, spans, examples, features, begin)
    dtype = np.dtype(network.dtype).type
    total, count = dtype(0), dtype(0)
    latest = total, count
    outputs: list[np.ndarray] = []
    fired: dict[str, np.ndarray] = {}
    inputs = x.transpose(1, 0, 2)
    for number, first in enumerate(range(0, steps, size)):
        last = min(first + size, steps)
        carried.begin(last - first, ends and last == steps)
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
        ran = chains.ran(rule, numpy, given, window, carried, carried.begun and spans is not None)
        if ran is None:
            return None
        carried.take(ran, x[last - 1])
        latest = dtype(ran.loss), dtype(some)
        total, count = total + latest[0], count + latest[1]
        outputs.append(ran.scores)
        for name, sums in ran.spikes.items():
            fired[name] = fired[name] + sums[0] if name in fired else sums[0]
        updates.take(number, ran.gradients)
    summed, alone = ((np.asarray(one), np.asarray(other)) for one, other in ((total, count), latest))
    return Passed(summed, alone, np.concatenate(outputs), fired, carried.states, carried.credit())


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
        begin: what came before; None for nothing.

    Attributes:
        states: of the network.
    """

    def __init__(
        self,
        rule: LearningRule,
        host: HostBackend,
        spans: Spans | None,
        examples: int,
        features: int,
        begin: Begin | None = None,
    ) -> None:
        network = rule.model.network
        self.graph, self.dtype, self.spans, self.examples = network.graph, network.dtype, spans, examples
        self.begun, self.last, self.steps, self._windows = begin is not None, False, 0, 0
        states = at_rest(rule.nx, self.graph, examples, features, self.dtype) if begin is None else begin.states
        self.states = {name: {key: host.host(each) for key, each in of.items()} for name, of in states.items()}
        # States of two windows ago, which nobody needs.
        self._spare: dict[tuple[str, str], np.ndarray] = {}
        self._delayed = [connection for connection in self.graph.connections if connection.delay]
        self._sent: dict[str, np.ndarray] = {}
        self._sums: dict[str, np.ndarray] = {}
        self._filtered: dict[str, np.ndarray] = {}
        if spans is not None:
            traces = rule.stepwise.start(examples) if begin is None else begin.credit
            for name, rate in spans.rates.items():
                self._sums[name] = host.host(traces[name][rate.state])[:, :, 0]
                if f"{name} filtered" in traces:
                    before = traces[f"{name} filtered"]["trace"]
                    held = self._filtered[name] = BUFFERS.empty(tuple(before.shape), self.dtype)
                    if begin is not None:
                        held[:] = host.host(before)

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
            parts += [self.states[c.source][Z] for c in self._delayed if c.weight == of]
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
            found[argument] = handed_over(self.states[name][key], self.dtype)
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
        self.states[INPUT] = {Z: inputs}
        for argument, (name, key) in ran.links.handed.ends.items():
            # Those before the first window are not ours.
            if self._windows:
                self._spare[name, key] = self.states[name][key]
            self.states[name][key] = ran.handed[argument]
        self.begun, self._windows = True, self._windows + 1
        if self.spans is None or self.last:
            return
        vectors = {of: ran.handed[name] for name, (what, of) in ran.links.handed.traces.items() if what == "vector"}
        for name, rate in self.spans.rates.items():
            if name in vectors:
                self._sums[name] = vectors[name]
            else:
                ones = _constant("ones", self.steps, 0.0, rate, "float64")
                self._sums[name] = (rate.leak**self.steps * self._sums[name] + ones).astype(self.dtype, copy=False)

    def credit(self) -> dict[str, dict[str, np.ndarray]]:
        """The traces as the engine has them."""
        rates = {} if self.spans is None else self.spans.rates
        found = {name: {rate.state: self._sums[name][:, :, None]} for name, rate in rates.items()}
        return found | {f"{name} filtered": {"trace": held} for name, held in self._filtered.items()}


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
