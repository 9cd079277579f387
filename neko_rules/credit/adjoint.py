"""Adjoint: gradients backward in time, for full, layer and neuron temporal credit.

For a population with state s, given G_t = ∂E/∂z_t and g_t = ∂E/∂s_t from outside it, the recursion from t = T-1 down
to 0 is

    λz_t = G_t + r_{t+1}·λs_{t+1} + V δ_{t+1}          (V δ only for layer and full credit)
    λs_t = g_t + D_{t+1}ᵀ λs_{t+1} + h_t λz_t
    δ_t  = q_t·λs_t                                     the derivative with respect to the input current
    dE/dW = Σ_t x_tᵀ δ_t    dE/dV = Σ_t z_{t-1}ᵀ δ_t    dE/db = Σ_t δ_t
    dE/dc = Σ_t λs_t·∂s_t/∂c + λz_t ∂z_t/∂c             for a learnable constant c of the neuron

and the signal to a population below is δ_t Wᵀ where the signal keeps its paths through time, or q_t·(h_t G_t + g_t) Wᵀ
where it is instantaneous. To one whose spikes move in time it is (δ_{t-1} + δ_t) Wᵀ/2: a membrane above that jumps at a
spike was before it what it was a step earlier, and the spike moves the loss between the two.

The recursion steps through time, evaluating the local derivatives as it goes, while they are in the processor's cache;
weight gradients and signals are one matrix product over all time steps after it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from neko_rules.backend import Array, Arrays, Backend, Parameters
from neko_rules.credit.axes import Credit
from neko_rules.credit.factors import kinds
from neko_rules.credit.feedback import backward_parameter, backward_weight, direct_name
from neko_rules.credit.fused import LOOPS
from neko_rules.credit.fused_factors import through_time
from neko_rules.credit.fused_traces import met_by
from neko_rules.credit.on_gpu import LAUNCHES
from neko_rules.credit.recursion import ABOVE, Recursion, Setting, factors_met
from neko_rules.credit.spans import Earlier
from neko_rules.credit.traced import Product, Solved
from neko_rules.credit.versions import Versions
from neko_rules.kernels.dense import multiplied
from neko_rules.kernels.host import contiguous, host_of
from neko_rules.kernels.triton import on_gpu
from neko_rules.layers.cell import Constants
from neko_rules.layers.forward import Record, Signals, Trajectory, Z, by_parameter, effective_weight, worth_walking
from neko_rules.layers.graph import INPUT, Connection, Graph, bias_name, constant_name
from neko_rules.layers.jacobians import Jacobians


class Problem(NamedTuple):
    """A forward pass and all that is needed to go back through it.

    Args:
        nx: backend.
        graph: the network.
        jacobians: population name → the derivatives of its cell.
        constants: population name → the constants of its cell.
        parameters: name → array.
        feedback: weight name → feedback matrix, where it is not the weight itself.
        trajectory: what the forward pass recorded.
        credit: which gradient.
        earlier: what was sent before the first step: traces, which meet the first δ, and filtered ones, which meet
            the first signal. None where the pass begins a sequence, or where credit ends.
        alone: whether what a weight does stays with its own neuron, of the population that it ends on (SnAp-1).
        versions: the matrices that errors come back through, where weights have changed on the way.
    """

    nx: Backend
    graph: Graph
    jacobians: dict[str, Jacobians]
    constants: dict[str, Constants]
    parameters: Parameters
    feedback: Parameters
    trajectory: Trajectory
    credit: Credit
    earlier: Earlier | None = None
    alone: bool = False
    versions: Versions | None = None

    @property
    def setting(self) -> Setting:
        """What the recursion sees of it."""
        # Not kept: it holds on to this problem, and the two would keep the histories of a step alive after it.
        factored = kinds(self.graph, self.jacobians, self.constants, self.credit)
        given = self.jacobians, self.constants, self.credit, self.back, factored, self.alone, self.versions
        return Setting(self.nx, self.graph, *given)

    def back(self, connection: Connection) -> Array:
        """The transposed weight that carries a connection's error back: [target, source]."""
        nx = self.nx
        back = back_to(nx, self.credit, self.parameters, self.feedback, connection.source, connection)
        return back * nx.eye(back.shape[0], nx.dtype(back)) if self.alone else back


def back_to(
    nx: Backend,
    credit: Credit,
    parameters: Parameters,
    feedback: Parameters,
    source: str,
    connection: Connection | None,
) -> Array:
    """The transposed weight that carries an error back to a population, [target, source].

    Args:
        nx, credit, parameters, feedback: as in ``Problem``.
        source: the population.
        connection: the one that leads from it; None for direct feedback.
    """
    if connection is None:
        return nx.transpose(feedback[direct_name(source)], (1, 0))
    weight = effective_weight(nx, connection, parameters)
    return nx.transpose(backward_weight(nx, connection, weight, feedback, credit), (1, 0))


def gradients(problem: Problem, signals: Signals) -> Parameters:
    """dE/dparameter for every parameter.

    Args:
        problem: the forward pass.
        signals: (population, "z" or state) → ∂E/∂z_t or ∂E/∂s_t from the loss and from regularisers, each broadcastable
            to [time, batch, neuron].
    """
    return _solved(problem, signals)[0]


def learning_signals(problem: Problem, signals: Signals) -> Signals:
    """G_t = ∂E/∂z_t of every population that an error reaches, [time, batch, neuron]; not for full credit.

    With full credit what reaches a population through its own component's recurrence is not separated from G. What
    ``signals`` gives for a state is kept as it is.
    """
    assert problem.credit.temporal != "full", "full credit has no learning signals apart from the recursion"
    nx = problem.nx
    return {
        key: nx.broadcast_to(_whole(nx, signal), problem.trajectory.records[key[0]].shape)
        for key, signal in _solved(problem, signals)[1].items()
    }


Handed = dict[tuple[str, str], Array | Product]
"""Signals, some of which are not multiplied out."""

FEW_ABOVE = 64
"""Neurons above, up to which a signal is multiplied out row by row where it is used, and not kept."""


def _whole(nx: Backend, signal: Array | Product) -> Array:
    """A signal as an array."""
    return signal.whole(nx) if isinstance(signal, Product) else signal


def _solved(problem: Problem, given: Signals) -> tuple[Parameters, Handed]:
    """Gradients, and the signals that reached the populations, from the top down."""
    graph, credit = problem.graph, problem.credit
    whole = credit.temporal == "full"
    groups = list(graph.components if whole else ((name,) for name in graph.order))
    if credit.spatial == "direct":
        groups.sort(key=lambda group: graph.output in group)
    signals: Handed = dict(given)
    # Beside those through the weights of every time step, what some meet through the weights as they are now.
    met_now = {key: each for key, each in given.items() if problem.versions and key[0] in problem.versions.now}
    found: Parameters = {}
    for group in reversed(groups):
        delta, within_step, constants, sums = _stepped_back(problem, group, signals | met_now)
        if problem.versions is not None and group[0] in problem.versions.now:
            within_step = _within_step(problem, group, signals)
        if problem.alone:
            # What goes down has gone through all neurons, whatever becomes of it at a weight of this population.
            below = problem._replace(alone=False)
            sends = any(receiving(graph, credit, name, group) for name in group)
            within_step = _stepped_back(below, group, signals)[0] if sends else {}
        for (name, constant), gradient in constants.items():
            found[constant_name(graph.cell(name), name, constant)] = gradient
        for name in group:
            found.update(weight_gradients(problem, name, delta[name], sums.get(name), signals.get((name, Z))))
            _pass_down(problem, name, within_step.get(name, delta[name]), group if whole else (), signals, met_now)
    return {name: found[name] for name in problem.parameters}, signals


def _stepped_back(problem: Problem, group: tuple[str, ...], signals: Handed) -> Solved:
    """The recursion of a group over all time steps, as one compiled loop where there is one."""
    nx, dtype = problem.nx, problem.nx.dtype(problem.trajectory.inputs)
    setting, records = _recorded(problem, group, signals)
    host = host_of(nx)
    if host is not None or (len(group) == 1 and on_gpu(nx) and setting.versions is None):
        arriving = tuple(key for name in reversed(group) for key in signals if key[0] == name)
        made: Any = LAUNCHES if host is None else LOOPS
        coming = [signals[key] if host is not None else _whole(nx, signals[key]) for key in arriving]
        products = tuple(isinstance(each, Product) for each in coming)
        compiled = made.of(setting, group, arriving, products, dtype)
        if compiled is not None:
            solved: Solved = compiled.run(nx, setting, records, coming)
            return solved
    recursion, inputs = _recursion(nx, setting, records, group, signals)
    like = dict(zip((name for name, _ in recursion.arriving), inputs, strict=False))
    carry = tuple(nx.full(like[name].shape[1:], 0.0, dtype) for name, *_ in recursion.carried)
    steps, versions = inputs[0].shape[0], setting.versions
    backs = () if versions is None else tuple(versions.by_step(nx, c, steps, c.delay) for c in recursion.returning)
    _, outputs = nx.scan(recursion.step, carry, (*inputs, *backs), steps, reverse=True)
    delta = dict(zip(group, outputs, strict=False))
    outputs = outputs[len(group) :]
    constants = {key: nx.sum(each, axis=(0, 1)) for key, each in zip(recursion.learnable, outputs, strict=True)}
    return delta, recursion.within_step(inputs), constants, {}


def _within_step(problem: Problem, group: tuple[str, ...], signals: Handed) -> dict[str, Array]:
    """q_t·h_t G_t of a group, where that is what goes down."""
    recursion, inputs = _recursion(problem.nx, *_recorded(problem, group, signals), group, signals)
    return recursion.within_step(inputs)


def _recorded(problem: Problem, group: tuple[str, ...], signals: Handed) -> tuple[Setting, dict[str, Record]]:
    """What the recursion of a group sees, with derivatives of what was recorded, and what it did, with its factors."""
    setting, records = problem.setting, problem.trajectory.records
    found = {name: records[name].derivatives(setting.jacobians[name]) for name in group}
    setting = setting._replace(jacobians=setting.jacobians | found)
    dtype = problem.nx.dtype(problem.trajectory.inputs)
    for name in (each for each in group if each in setting.factored):
        wanted = tuple(factors_met(setting.factored, name, tuple(signals)))
        start = None if problem.earlier is None else problem.earlier.factors[name]
        histories = through_time(setting, name, records[name], start, wanted, dtype)[1]
        records = {**records, name: records[name].with_factors(histories)}
    return setting, records


def _recursion(
    nx: Backend, setting: Setting, records: dict[str, Record], group: tuple[str, ...], signals: Handed
) -> tuple[Recursion, Arrays]:
    """The recursion of a group by operations of the backend, and the signals and histories that it takes, in time."""
    states = tuple(key for key in signals if key[0] in group and key[1] != Z)
    recursion = Recursion(setting, group, states, apart=True)
    zero = nx.full((), 0.0, nx.dtype(records[group[0]].z))
    given = [nx.broadcast_to(_whole(nx, signals.get(key, zero)), records[key[0]].shape) for key in recursion.arriving]
    return recursion, (*given, *(records[name].history(nx, key) for name, key in recursion.recorded))


def weight_gradients(
    problem: Problem,
    name: str,
    delta: Array,
    summed: Array | None = None,
    signal: Array | Product | None = None,
) -> Parameters:
    """dE/dW = Σ_t x_tᵀ δ_t for every weight into a population, and dE/db = Σ_t δ_t, which may be known already.

    What ``problem.earlier`` says was sent before meets the first δ, and the first of the signals G.
    """
    nx, found = problem.nx, {}

    def with_earlier(parameter: str, gradient: Array) -> Array:
        if problem.earlier is None:
            return gradient
        gradient = gradient + nx.matmul(nx.transpose(problem.earlier.inputs[parameter], (1, 0)), delta[0])
        if parameter not in problem.earlier.filtered or signal is None:
            return gradient
        kappa, traces = problem.earlier.filtered[parameter]
        first = Product(signal.errors[:1], signal.back).whole(nx) if isinstance(signal, Product) else signal
        return gradient + met_by(nx, traces, kappa * first[0])

    for connection in problem.graph.into(name):
        gradient = _gradient_of_events(problem, connection, delta)
        if gradient is None:
            sent, received = (_flat(nx, each) for each in meeting(problem, connection, delta))
            patches = connection.patches if problem.earlier is None else None
            if patches is not None and patches.pay:
                found[connection.weight] = patches.gradient(nx, sent, received)
                continue
            gradient = multiplied(nx, nx.transpose(sent, (1, 0)), received)
        gradient = with_earlier(connection.weight, gradient)
        found[connection.weight] = _by_parameter(nx, connection, gradient)
    if problem.graph.populations[name].bias:
        total = nx.sum(_flat(nx, delta), axis=0) if summed is None else summed
        found[bias_name(name)] = with_earlier(bias_name(name), total[None])[0]
    return found


def _by_parameter(nx: Backend, connection: Connection, gradient: Array) -> Array:
    """A gradient by the matrix, which was just made and may be written to, as one by the parameter."""
    host = host_of(nx)
    if host is None or connection.shares:
        return by_parameter(nx, connection, gradient)
    if connection.partial:
        connection.clear(host.host(gradient))
    return gradient


def _gradient_of_events(problem: Problem, connection: Connection, delta: Array) -> Array | None:
    """The gradient of a weight from the events of its source, where those were kept and are few."""
    host, trajectory = host_of(problem.nx), problem.trajectory
    events = trajectory.events.get(connection.source)
    if host is None or events is None or not worth_walking(connection, events):
        return None
    received = contiguous(host.host(delta))
    if not connection.delay:
        return host.from_host(events.gradient(received))
    gradient = events[:-1].gradient(received[1:])
    if trajectory.start is not None:
        gradient += host.host(trajectory.start[connection.source][Z]).T @ received[0]
    return host.from_host(gradient)


def meeting(problem: Problem, connection: Connection, delta: Array) -> tuple[Array, Array]:
    """What a connection sent and the δ at its arrival, step by step: a delayed one sends z_t to δ_{t+1}."""
    z = problem.trajectory.z(connection.source)
    # Part of an array is a view in host memory, and a copy elsewhere: two would be made then, and here it is one.
    viewed = getattr(problem.nx, "in_host_memory", False)
    if connection.delay and (problem.trajectory.start is not None or not viewed):
        return problem.trajectory.sent(problem.nx, connection), delta
    return (z[:-1], delta[1:]) if connection.delay else (z, delta)


def _flat(nx: Backend, array: Array) -> Array:
    """[time, batch, neuron] as [time · batch, neuron]."""
    return nx.reshape(array, (array.shape[0] * array.shape[1], array.shape[2]))


def _with_earlier(nx: Backend, history: Array) -> Array:
    """The mean of every step and the one before; the first as it is."""
    return nx.concat([history[:1], 0.5 * (history[:-1] + history[1:])], 0)


def receiving(
    graph: Graph, credit: Credit, name: str, together: tuple[str, ...]
) -> list[tuple[str, Connection | None]]:
    """The populations that a population's error is handed down to, and by which connection; None: direct feedback.

    Args:
        graph: the network.
        credit: which gradient.
        name: of the population.
        together: those that were solved together with it, for full credit.
    """
    if credit.spatial == "direct":
        return [(other, None) for other in graph.order if other != name] if name == graph.output else []
    if not credit.passes_down:
        return []
    return [
        (connection.source, connection)
        for connection in graph.into(name)
        if connection.source not in (INPUT, *together) and (together or not connection.delay)
    ]


def arrives_at(credit: Credit) -> str:
    """Where the error of a population arrives at one below: its output, or by itself where its memory is estimated."""
    return ABOVE if credit.learning_signal == "estimated" else Z


def _pass_down(
    problem: Problem, name: str, below: Array, together: tuple[str, ...], signals: Handed, met_now: Handed
) -> None:
    """Add a population's error to the signals of the populations that it receives from.

    Delayed connections carry error only for full credit, and connections inside a group that was solved together have
    already carried theirs. Direct feedback goes from the output straight to every other population, and where signals
    are local nothing is passed down at all.
    """
    nx, graph, credit, versions = problem.nx, problem.graph, problem.credit, problem.versions

    def carried(source: str, connection: Connection | None, now: bool) -> Array | Product:
        error = _with_earlier(nx, below) if problem.jacobians[source].timed else below
        if versions is not None and versions.down and connection is not None and not now:
            return nx.matmul(error, versions.by_step(nx, connection, below.shape[0]))
        patches = None if connection is None or credit.spatial == "sign" else connection.patches
        if connection is not None and patches is not None and patches.pay_back:
            weights = backward_parameter(connection, problem.parameters, problem.feedback)
            return nx.reshape(patches.back(nx, _flat(nx, error), weights), (*error.shape[:2], patches.sources))
        back = back_to(nx, credit, problem.parameters, problem.feedback, source, connection)
        product = Product(error, back)
        # Kept apart where a compiled loop takes it up, and the backend's product would be one of slim matrices.
        return product if host_of(nx) is not None and back.shape[0] <= FEW_ABOVE else product.whole(nx)

    def add(to: Handed, key: tuple[str, str], part: Array | Product) -> None:
        to[key] = _whole(nx, to[key]) + _whole(nx, part) if key in to else part

    for source, connection in receiving(graph, credit, name, together):
        part = carried(source, connection, False)
        if connection is not None and connection.delay:
            later = _whole(nx, part)
            part = nx.concat([later[1:], nx.full((1, *later.shape[1:]), 0.0, nx.dtype(later))], 0)
        key = (source, arrives_at(credit))
        add(signals, key, part)
        if versions is not None and source in versions.now:
            add(met_now, key, carried(source, connection, True))
