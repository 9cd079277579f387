"""Recursion: one step back in time of a group of populations, over the arrays of any backend.

For a population with state s, given G_t = ∂E/∂z_t and g_t = ∂E/∂s_t from outside it,

    λz_t = G_t + r_{t+1}·λs_{t+1} + V δ_{t+1}          (V δ only for layer and full credit)
    λs_t = g_t + D_{t+1}ᵀ λs_{t+1} + h_t λz_t
    δ_t  = q_t·λs_t                                     the derivative with respect to the input current

Where a population has factors (``factors``), they are histories like those of its states, and

    δ_t  = a δ_{t+1} + G_t F^z_t + g_t·F_t                                  for a rank-one trace, of a factor F
    λz_t = G_t + Ĝ_t + r_{t+1}·λs_{t+1} + V δ_{t+1},   Ĝ_t = G^above_t + λ Ĝ_{t+1}      for estimated signals
    λv_t = … + Ĝ_t,                                    Ĝ_t = G^above_t ḡ_t + λ Ĝ_{t+1}  for those kept apart

with G^above what comes from the layer above, and q_t ḡ_t (G_t + G^above_t) what goes on to the layer below.

Where an error moves spikes in time (``layers.spike_times``) h_t meets what changes if a spike comes one step later,

    λz_t = O_t - O_{t+1} + c_{t+1}·λs_{t+1},                                            O_t = G_t + V δ_{t+1}

The step is a function of arrays [batch, neuron] and of values that stand for a single neuron alike: ``adjoint`` scans
it, and ``fused`` writes a compiled loop from it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

from neko_rules.backend import Array, Arrays, Backend
from neko_rules.credit.axes import Credit
from neko_rules.credit.versions import Versions
from neko_rules.layers.cell import Constants
from neko_rules.layers.forward import Signals, Z
from neko_rules.layers.graph import INPUT, Connection, Graph
from neko_rules.layers.jacobians import Entry, Jacobians

Local = dict[Entry, Array]
"""The local derivatives of a population at one step: entries [batch, neuron], or constant in time."""

Carried = tuple[str, str, str]
"""What a step back sends to the step before: (population, "state", state name), (…, "z", "") or (…, "delta", ""); of
one that has factors (…, "trace", "") is a δ and (…, "above", "") is λ Ĝ, and (…, "apart", state or "z") is the same for
learned constants as for weights that meet no such factor. Of one whose spikes move in time (…, "others", "") is O."""

Constant = tuple[str, str]
"""A learnable constant: the population and the constant's name in the cell's equations."""

ABOVE = "above"
"""Where the signals of the layer above arrive, if they are not gone through time with those from elsewhere."""

RANK_ONE, MEAN, APART = "rank one", "mean", "mean, kept apart"
"""Kinds of factors: of a rank-one trace; of an estimated signal; and of one that takes the place of h as well."""

FACTOR = "factor_"
"""What the history of a factor is called, before ``"z"`` or the state that it belongs to."""

DECAYS = "decays of credit"
"""Beside populations, where the constants of a setting have by what number each one's factors decay."""


def keeps_paths(credit: Credit, graph: Graph, name: str) -> bool:
    """Whether the error that a population sends down includes its paths through time."""
    return credit.learning_signal == "exact" or (credit.learning_signal == "filtered" and name == graph.output)


def times(factor: Array, array: Array) -> Array:
    """A product that leaves out a factor of exactly one (derivatives are often the number 1)."""
    if isinstance(factor, int) and factor == 1:
        return array
    if isinstance(array, int) and array == 1:
        return factor
    return factor * array


class Setting(NamedTuple):
    """What the recursion of a group of populations depends on, in the arrays of one backend.

    Args:
        nx: backend.
        graph: the network.
        jacobians: population name → the derivatives of its cell.
        constants: population name → the constants of its cell; beside them ``DECAYS``, where there are factors.
        credit: which gradient.
        back: the transposed weight that carries a connection's error back: [target, source].
        factored: population name → the kind of its factors, of those that have some.
        alone: whether an error goes back through the neuron that it is of alone, and through no other of its population
            (SnAp-1).
        versions: what stands for ``back`` within a group, where weights have changed on the way.
    """

    nx: Backend
    graph: Graph
    jacobians: dict[str, Jacobians]
    constants: dict[str, Constants]
    credit: Credit
    back: Callable[[Connection], Array]
    factored: Mapping[str, str] = {}
    alone: bool = False
    versions: Versions | None = None

    def numbers(self, name: str) -> list[Array]:
        """The constants of a population's cell, and by what its factors decay."""
        decay = [self.constants[DECAYS][name]] if name in self.factored else []
        return [*self.constants[name].values(), *decay]


class Stepped(NamedTuple):
    """What a step back finds for a population.

    Attributes:
        delta: δ_t.
        sent: what it sends to the step before.
        within_step: q_t·h_t G_t where that is what goes down, else None.
        constants: ∂E/∂c of the step.
    """

    delta: Array
    sent: dict[Carried, Array]
    within_step: Array | None
    constants: dict[str, Array]


class Recursion:
    """λs and λz of a group of populations, stepped backward in time: what t+1 sends to t, and what it does there.

    The carry holds only what is not identically zero: per population Σ_k D_kj λs_k for each state j, r·λs where
    something depends on z_{t-1}, and δ where a delayed connection carries error back.

    Args:
        setting: the network.
        group: the populations.
        states: (population, state) of the signals from outside that arrive at a state.
        apart: whether a step leaves out the errors within a time step, which need no recursion: ``within_step`` has
            them for all time steps at once.
    """

    def __init__(
        self, setting: Setting, group: tuple[str, ...], states: tuple[tuple[str, str], ...], apart: bool = False
    ) -> None:
        self.setting = setting
        self.nx = setting.nx
        self.group = group
        self.arriving = (*((name, Z) for name in group), *states)
        self.recorded = [
            (name, key)
            for name in group
            for key in setting.jacobians[name].arguments
            if key not in setting.constants[name]
        ]
        self.recorded += [(name, key) for name in group for key in factors_met(setting.factored, name, states)]
        temporal = setting.credit.temporal
        self.outgoing: dict[str, list[tuple[Connection, Array]]] = {name: [] for name in group}
        for connection in setting.graph.within(group):
            own = connection.source == connection.target
            nothing = setting.alone and connection.hollow
            if not nothing and (temporal == "full" or (temporal == "layer" and own)):
                self.outgoing[connection.source].append((connection, setting.back(connection)))
        self.learnable: list[Constant] = [
            (name, constant) for name in group for constant in setting.jacobians[name].learnable
        ]
        self.returning = [c for edges in self.outgoing.values() for c, _ in edges] if setting.versions else []
        self.carried = [key for name in group for key in self._carried(name)]
        below = [name for name in group if any(c.source != INPUT and not c.delay for c in setting.graph.into(name))]
        # Direct feedback leaves the output whatever it receives.
        if setting.credit.spatial == "direct" and setting.graph.output in group:
            below = list(dict.fromkeys([*below, setting.graph.output]))
        self.pathless = [name for name in below if not keeps_paths(setting.credit, setting.graph, name)]
        self.instantaneous = [] if apart else self.pathless

    def _carried(self, name: str) -> list[Carried]:
        entries, kind = self.setting.jacobians[name].expressions, self.setting.factored.get(name)
        own: list[Carried] = [(name, "trace", "")] if kind == RANK_ONE else []
        own += [(name, "above", "")] if (name, ABOVE) in self.arriving else []
        if kind == RANK_ONE and not self._learned(name):
            return own
        states = {entry[2] for entry in entries if entry[0] == "D"}
        keys: list[Carried] = [(name, "state", state) for state in sorted(states)]
        if self._has_constants_apart(name):
            own += [(name, "apart", state) for state in sorted({*states, Z})]
        if any(entry[0] == "r" for entry in entries):
            keys.append((name, "z", ""))
        edges = (connection for edges in self.outgoing.values() for connection, _ in edges)
        if any(connection.delay and connection.target == name for connection in edges):
            keys.append((name, "delta", ""))
        if self.setting.jacobians[name].timed:
            keys.append((name, "others", ""))
        return keys + own

    def step(self, carry: Arrays, inputs: Arrays) -> tuple[Arrays, Arrays]:
        """One step back: signals, histories and matrices, in the order of ``arriving``, ``recorded`` and ``returning``.

        Returns the next carry and, by population, δ; q_t·h_t G_t where that is what goes down; ∂E/∂c of the step.
        """
        later = dict(zip(self.carried, carry, strict=True))
        given = len(inputs) - len(self.returning)
        signals, recorded = self._by_key(inputs[:given])
        backs = dict(zip((c.weight for c in self.returning), inputs[given:], strict=True))
        found: dict[str, Stepped] = {}
        for name in reversed(self.group):
            deltas = {of: each.delta for of, each in found.items()}
            found[name] = self.stepped(name, later, signals, recorded, deltas, backs)
        outputs = (
            *(found[name].delta for name in self.group),
            *(found[name].within_step for name in self.instantaneous),
            *(found[name].constants[constant] for name, constant in self.learnable),
        )
        return tuple(found[key[0]].sent[key] for key in self.carried), outputs

    def stepped(
        self,
        name: str,
        later: Mapping[Carried, Array],
        signals: Signals,
        recorded: Mapping[tuple[str, str], Array],
        delta: Mapping[str, Array],
        backs: Mapping[str, Array],
    ) -> Stepped:
        """The same of one population.

        Args:
            name: of the population.
            later: what was sent from the step after.
            signals, recorded: by key.
            delta: δ_t of the populations of the group that come after it.
            backs: weight name → the matrix of this step, of those in ``returning``.
        """
        local = self._local(name, recorded)
        z, onto_states, leaking = signals[name, Z], signals, self._leaking(name, later, signals, recorded)
        if leaking is not None and self.setting.factored[name] == MEAN:
            z = z + leaking
        elif leaking is not None:
            onto_states = {**signals, **self._onto_membrane(name, leaking, signals)}
        for connection, back in self.outgoing[name]:
            error = later[connection.target, "delta", ""] if connection.delay else delta[connection.target]
            z = z + self.nx.matmul(error, backs.get(connection.weight, back))
        others = z
        if (name, "others", "") in later:
            z = z - later[name, "others", ""]
        if (name, "z", "") in later:
            z = z + later[name, "z", ""]
        by_factors = self.setting.factored.get(name) == RANK_ONE
        wanted = not by_factors or self._learned(name)
        lam = self._lambda(name, local, later, onto_states, z) if wanted else {}
        if by_factors:
            own = self._by_factors(name, later, signals, recorded)
        else:
            own = total(self.nx, local, [("q", k) for k in lam], lam, z)
        sent: dict[Carried, Array] = {}
        for key in (key for key in self.carried if key[0] == name and key[1] != "apart"):
            entries: list[Entry] = [("D", k, key[2]) if key[1] == "state" else ("r", k) for k in lam]
            if key[1] in ("trace", "above"):
                sent[key] = self.setting.constants[DECAYS][name] * (own if key[1] == "trace" else leaking)
            elif key[1] in ("others", "delta"):
                sent[key] = others if key[1] == "others" else own
            else:
                sent[key] = total(self.nx, local, entries, lam, z)
        within = self._within(name, local, signals, recorded) if name in self.instantaneous else None
        met = {**lam, Z: z}
        if self._has_constants_apart(name):
            met = self._met_by_constants(name, local, later, signals)
            for state in (key[2] for key in self.carried if key[:2] == (name, "apart")):
                decaying = self.setting.constants[DECAYS][name] * (met[Z] - signals[name, Z])
                entries = [("D", k, state) for k in lam]
                sent[name, "apart", state] = decaying if state == Z else total(self.nx, local, entries, met, z)
        constants: dict[str, Array] = {}
        for constant in self._learned(name):
            constants[constant] = total(self.nx, local, [("c", k, constant) for k in met], met, z)
        return Stepped(own, sent, within, constants)

    def _has_constants_apart(self, name: str) -> bool:
        """Whether learned constants meet h where weights meet ḡ, and so have a recursion of their own."""
        apart = self.setting.factored.get(name) == APART and (name, ABOVE) in self.arriving
        return apart and bool(self._learned(name))

    def _learned(self, name: str) -> list[str]:
        """The learned constants of a population."""
        return [constant for of, constant in self.learnable if of == name]

    def _met_by_constants(
        self, name: str, local: Local, later: Mapping[Carried, Array], signals: Signals
    ) -> dict[str, Array]:
        """λs_t and λz_t = G_t + Ĝ_t of a population whose signals are kept apart for its weights."""
        z = signals[name, Z] + (signals[name, ABOVE] + later[name, "apart", Z])
        own = {(name, "state", key[2]): each for key, each in later.items() if key[:2] == (name, "apart")}
        return {**self._lambda(name, local, own, signals, z), Z: z}

    def _leaking(
        self, name: str, later: Mapping[Carried, Array], signals: Signals, recorded: Mapping[tuple[str, str], Array]
    ) -> Array | None:
        """Ĝ_t of a population below a layer whose memory is estimated; None for any other."""
        if (name, ABOVE) not in signals:
            return None
        arriving = signals[name, ABOVE]
        if self.setting.factored[name] == APART:
            arriving = arriving * recorded[name, FACTOR + Z]
        return arriving + later[name, "above", ""]

    def _onto_membrane(self, name: str, leaking: Array, signals: Signals) -> Signals:
        """Ĝ_t as a signal of the one membrane that a current drives, with what arrives there anyway."""
        driven = driven_of(self.setting.jacobians[name].expressions)
        present = signals.get((name, driven))
        return {(name, driven): leaking if present is None else present + leaking}

    def _by_factors(
        self, name: str, later: Mapping[Carried, Array], signals: Signals, recorded: Mapping[tuple[str, str], Array]
    ) -> Array:
        """δ_t = a δ_{t+1} + G_t F^z_t + g_t·F_t."""
        arriving = [key for key in signals if key[0] == name and (name, FACTOR + key[1]) in recorded]
        parts = [signals[key] * recorded[name, FACTOR + key[1]] for key in arriving]
        return sum(parts, later[name, "trace", ""])

    def _within(self, name: str, local: Local, signals: Signals, recorded: Mapping[tuple[str, str], Array]) -> Array:
        """A population's error at its current within the time step, by which it hands it down."""
        if self.setting.factored.get(name) not in (MEAN, APART):
            return instantaneous_error(self.nx, name, local, signals)
        z = signals[name, Z]
        means = with_mean(local, recorded[name, FACTOR + Z])
        sent = {**signals, (name, Z): z + signals[name, ABOVE] if (name, ABOVE) in signals else z}
        return instantaneous_error(self.nx, name, means, sent)

    def within_step(self, inputs: Arrays) -> dict[str, Array]:
        """q_t·h_t G_t of the populations where that is what goes down, from signals and histories in time."""
        signals, recorded = self._by_key(inputs)
        return {name: self._within(name, self._local(name, recorded), signals, recorded) for name in self.pathless}

    def _by_key(self, inputs: Arrays) -> tuple[Signals, dict[tuple[str, str], Array]]:
        """The signals, and the histories, that ``step`` takes."""
        signals = dict(zip(self.arriving, inputs, strict=False))
        return signals, dict(zip(self.recorded, inputs[len(self.arriving) :], strict=True))

    def _local(self, name: str, recorded: Mapping[tuple[str, str], Array]) -> Local:
        """The local derivatives of a population at one step."""
        setting = self.setting
        return setting.jacobians[name].evaluate(
            self.nx, setting.graph.cell(name), setting.constants[name], lambda key: recorded[name, key]
        )

    def _lambda(
        self, name: str, local: Local, later: Mapping[Carried, Array], signals: Signals, z: Array
    ) -> dict[str, Array]:
        """λs_t = g_t + D_{t+1}ᵀ λs_{t+1} + h_t λz_t of every state that an error reaches."""
        lam: dict[str, Array] = {}
        for state in self.setting.jacobians[name].states:
            parts = [later[name, "state", state]] if (name, "state", state) in later else []
            parts += [times(local["h", state], z)] if ("h", state) in local else []
            parts += [signals[name, state]] if (name, state) in signals else []
            if parts:
                lam[state] = sum(parts[1:], parts[0])
        return lam


def factors_met(factored: Mapping[str, str], name: str, states: Collection[tuple[str, str]]) -> list[str]:
    """The histories of factors that a step back of a population needs.

    Args:
        factored: population name → the kind of its factors.
        name: of the population.
        states: where signals arrive beside outputs.
    """
    kind = factored.get(name)
    onto = [state for of, state in states if of == name and state != ABOVE] if kind == RANK_ONE else []
    return [] if kind is None else [FACTOR + key for key in (Z, *onto)]


def driven_of(entries: Iterable[Entry]) -> str:
    """The one membrane that a current drives, of a population whose memory is estimated."""
    (driven,) = (entry[1] for entry in entries if entry[0] == "q")
    return driven


def with_mean(local: Local, mean: Array) -> Local:
    """The local derivatives of a population with the mean ḡ in the place of h at the one membrane that is driven."""
    driven = driven_of(local)
    return {entry: value for entry, value in local.items() if entry[0] != "h"} | {("h", driven): mean}


def instantaneous_error(nx: Backend, name: str, local: Local, signals: Signals) -> Array:
    """q_t·(h_t G_t + g_t): a population's error at its current within the time step."""
    direct = {entry[1]: times(h, signals[name, Z]) for entry, h in local.items() if entry[0] == "h"}
    for (population, state), signal in signals.items():
        if population == name and state not in (Z, ABOVE):
            direct[state] = direct[state] + signal if state in direct else signal
    return total(nx, local, [("q", k) for k in direct], direct, signals[name, Z])


def total(nx: Backend, local: Local, entries: list[Entry], lam: dict[str, Array], like: Array) -> Array:
    """Σ_k entry_k λ_k over the entries that are not identically zero."""
    parts = [times(local[entry], lam[entry[1]]) for entry in entries if entry in local]
    if not parts:
        return nx.full(like.shape, 0.0, nx.dtype(like))
    return sum(parts[1:], parts[0])
