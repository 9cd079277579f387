"""Chained window: some time steps of a sequence by one compiled loop, with states and traces that go on.

What ``Online`` and ``Windowed`` do between two changes of the weights, in a chain of ``linking_window``.
"""

from __future__ import annotations

from functools import lru_cache, reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from neko_rules.backend import Array, Parameters
from neko_rules.credit.spans import Rate, Spans
from neko_rules.kernels.host import BUFFERS, HostBackend, handed_over, host_of
from neko_rules.layers.forward import NetworkState, Z
from neko_rules.layers.graph import INPUT
from neko_rules.rules.chained import Given, Ran, Window
from neko_rules.rules.rule import Own

if TYPE_CHECKING:
    from neko_rules.credit.stepwise import State
    from neko_rules.rules.learning_rule import LearningRule
    from neko_rules.rules.linking import Linked


class Before(NamedTuple):
    """What the time steps before a window leave.

    Attributes:
        states: of the network.
        spans: how traces go on; None where credit ends with the window.
        credit: the traces; those of synapses are changed where they are.
        begun: whether there were any time steps.
        last: whether nobody asks for traces after the window.
        whole: time steps of the sequence, which say whether a chain is worth compiling.
    """

    states: NetworkState
    spans: Spans | None
    credit: State
    begun: bool
    last: bool
    whole: int


class Went(NamedTuple):
    """What a window did.

    Attributes:
        states: of the network after it.
        credit: traces after it; anything if nobody asks.
        gradients: by parameter.
        loss: its sum over what is counted, and how much that is.
        outputs: what the loss observes, [time, batch, n_out].
        spikes: how often every neuron fired, [batch, neuron]; of no population if nobody asks.
    """

    states: NetworkState
    credit: State
    gradients: Parameters
    loss: tuple[Array, Array]
    outputs: Array
    spikes: dict[str, Array]


def through_window(
    rule: LearningRule, values: Parameters, own: Own, at: dict[str, Array], before: Before
) -> Went | None:
    """Go through a window; None where there is no chain for it, or no use for one.

    Args:
        rule: whose gradient it is.
        values, own: parameters and the rule's own arrays.
        at: inputs, targets, mask and weights of its time steps.
        before: what it begins with.
    """
    nx, network = rule.nx, rule.model.network
    host = host_of(nx)
    if host is None:
        return None
    chains = rule.chains()
    if not chains.serves(rule, before.whole, *at["x"].shape[1:]):
        return None
    inputs, target, mask, share = (host.host(at[key]) for key in ("x", "target", "mask", "weight"))
    count = mask.sum()
    weight = share.sum() / max(count, 1.0) * mask
    constants, turned = network.constants_with(values), inputs.transpose(1, 0, 2)
    given = Given(values, own["feedback"], constants, turned, target, mask, weight, "sequence")
    window = Window(() if before.spans is None else before.spans.filters)
    carried = Carried(rule, host, before, *at["x"].shape[:2])
    ran = chains.ran(rule, host, given, window, carried, before.begun and before.spans is not None)
    if ran is None:
        return None
    states: NetworkState = {INPUT: {Z: at["x"][-1]}} | {name: {} for name in network.graph.order}
    for argument, (name, key) in ran.links.handed.ends.items():
        states[name][key] = host.from_host(ran.handed[argument])
    return Went(
        states,
        carried.credit(ran),
        {name: host.from_host(ran.gradients[name]) for name in values},
        (nx.asarray(ran.loss, network.dtype), nx.asarray(count, network.dtype)),
        host.from_host(ran.scores),
        {name: host.from_host(sums[0]) for name, sums in ran.spikes.items()},
    )


_CONSTANT = frozenset({"decay", "kappa", "leak", "kept", "powers"})
"""What of a trace is the same in every window of so many time steps."""


class Carried:
    """What is carried through a window.

    Args:
        rule: the rule.
        host: its backend.
        before: what the window begins with.
        steps: its time steps.
        examples: of a batch.
    """

    def __init__(self, rule: LearningRule, host: HostBackend, before: Before, steps: int, examples: int) -> None:
        self.graph, self.dtype = rule.model.network.graph, rule.model.network.dtype
        self.host, self.before, self.steps, self.examples = host, before, steps, examples
        self._delayed = [connection for connection in self.graph.connections if connection.delay]
        self._sent: dict[str, np.ndarray] = {}

    def sent(self, of: str) -> np.ndarray:
        """What was sent before and meets the first δ of a parameter: [batch, pre]."""
        if of not in self._sent:
            host, spans = self.host, self.before.spans
            parts: list[np.ndarray] = []
            if spans is not None and of in spans.rates:
                # In host memory, since operations of backend arrays take a moment each.
                key = spans.rates[of].state
                parts.append(spans.sent_before({of: {key: host.host(self.before.credit[of][key])}}, of))
            parts += [host.host(self.before.states[c.source][Z]) for c in self._delayed if c.weight == of]
            self._sent[of] = reduce(np.add, parts)
        return self._sent[of]

    def handed(self, links: Linked) -> dict[str, Any]:
        """What a chain takes beside ``constants``, and arrays that it fills, by argument; new each time."""
        graph, examples, handed = self.graph, self.examples, links.handed

        def empty(name: str) -> np.ndarray:
            return np.empty((examples, graph.populations[name].size), self.dtype)

        found: dict[str, Any] = {
            argument: handed_over(self.host.host(self.before.states[name][key]), self.dtype)
            for argument, (name, key) in handed.starts.items()
        }
        found |= {argument: empty(name) for argument, (name, _) in handed.ends.items()}
        flags = {"begun": self.before.begun, "kept": not self.before.last}
        found |= {name: flags[name] for name in handed.flags}
        for argument, (what, of) in handed.traces.items():
            if what not in _CONSTANT:
                found[argument] = self._of_trace(what, of)
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
        spans = self.before.spans
        assert spans is not None, "a chain is told of traces where there are any"
        if what == "powers":
            later = any(c.weight == of for c in self._delayed)
            return _constant("later powers" if later else "powers", self.steps, 0.0, spans.rates[of], self.dtype)
        return _constant(what, self.steps, spans.filter_of(of), spans.rate_of(of), self.dtype)

    def _of_trace(self, what: str, of: str) -> Any:
        """An argument of a chain that has to do with the traces of a parameter, as they are."""
        if what == "begin":
            return handed_over(self.sent(of), self.dtype)
        spans = self.before.spans
        assert spans is not None, "a chain is told of traces where there are any"
        if what == "filtered":
            traces = self.host.host(self.before.credit[f"{of} filtered"]["trace"])
            return handed_over(traces if self.before.begun else BUFFERS.empty(traces.shape, self.dtype), self.dtype)
        rate = spans.rates[of]
        # What was sent before acts as one more input at the first step, here as in the gradient.
        return handed_over(rate.gain * rate.leak ** (self.steps - 1.0) * self.sent(of), self.dtype)

    def credit(self, ran: Ran) -> State:
        """The traces after the window."""
        spans, after = self.before.spans, {}
        if spans is None:
            return {}
        given = ran.links.handed.traces.items()
        found = {known: ran.handed[argument] for argument, known in given if argument in ran.handed}
        for name, rate in spans.rates.items():
            if ("vector", name) in found:
                vector = found["vector", name][:, :, None]
            else:
                held = self.host.host(self.before.credit[name][rate.state])
                ones = _constant("ones", self.steps, 0.0, rate, "float64")
                vector = (rate.leak**self.steps * held + ones).astype(self.dtype, copy=False)
            after[name] = {rate.state: self.host.from_host(vector)}
            if ("filtered", name) in found:
                after[f"{name} filtered"] = {"trace": self.host.from_host(found["filtered", name])}
        return after


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
