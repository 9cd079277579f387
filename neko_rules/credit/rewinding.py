"""Rewinding: gradients of a few time steps that go back through all that came before, with the weights of that time.

An online rule's gradient at time t is, for full and for layer credit,

    dE_t/dθ = G_t ∂s_t/∂θ,      ∂s_t/∂θ = Σ_{u ≤ t} A_t A_{t-1} … A_{u+1} q_u x_u,      A_r = ∂s_r/∂s_{r-1}

where A_r holds the recurrent weights that the network had at time r. Forward in time ∂s_t/∂θ is carried (``influence``,
``traces``): O(N) times the number of parameters in memory, and O(N²) times in operations at every time step. From the
other end the same product is the adjoint of t steps back,

    λ_t = G_t,      λ_{r-1} = A_rᵀ λ_r,      dE_t/dθ = Σ_u x_uᵀ q_u λ_u

O(t N²), of what the network did and of the weights that it did it with. Those are O(T N), which is less than O(N³) in
all but very long sequences: where they take several times the memory, and in streams, which have no end, the influence
is carried.

A library that compiles goes through arrays of the whole sequence in every piece, so that they have one shape; in host
memory only what has been is gone through.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple, TypedDict

import numpy as np

from neko_rules import trees
from neko_rules.backend import Array, Parameters
from neko_rules.credit.adjoint import Problem, gradients
from neko_rules.credit.fused import without_previous
from neko_rules.credit.influence import Influence
from neko_rules.credit.stepwise import LocalTraces, Model, Stepwise
from neko_rules.credit.traces import Recurrent
from neko_rules.credit.versions import Versions
from neko_rules.kernels.events import Events, listed
from neko_rules.kernels.host import HostBackend, contiguous, host_of
from neko_rules.layers.forward import Record, Signals, Trajectory, Z
from neko_rules.layers.graph import INPUT, Connection

MUCH = 1 << 21
"""Numbers that XLA takes through a time step while Python goes back through a sequence once."""

ENOUGH = 1 << 17
"""Those that NumPy's operations do."""

ROOM = 4
"""How many times the memory of what would be carried a sequence may take that is gone back through."""


def rewinds(stepwise: Stepwise, goes_back: str, size: int) -> bool:
    """Whether the gradients of a way forward in time are those of an adjoint with the weights of every time step.

    That is asked of those that carry an influence on whole populations: on the synapse's own, or on the output. What is
    carried to the output is less than what a pass backward costs at every time step.

    Args:
        stepwise: forward in time.
        goes_back: how the gradient of a whole sequence is had backward, as ``influence.goes_back`` has it.
        size: time steps between two changes of the weights.
    """
    model = stepwise.model
    if not goes_back or any(each.learnable for each in model.jacobians.values()):
        return False
    if isinstance(stepwise, Influence):
        # The matrix that goes back through a neuron alone is the diagonal of that which goes down.
        late = (c for c in model.graph.connections if c.delay and c.source != INPUT)
        return goes_back == "whole" or all(c.hollow for c in late)
    if not isinstance(stepwise, LocalTraces):
        return False
    recurrent = any(isinstance(trace, Recurrent) for trace in stepwise.traces.values())
    return recurrent or (size > 1 and bool(stepwise.unfolded))


def carried(stepwise: Stepwise) -> int:
    """How many numbers per example are carried forward in time."""
    # Of no examples there are arrays of the same shapes that take no memory.
    return sum(math.prod(array.shape[1:]) for array in trees.leaves(stepwise.start(0)))


class Place(NamedTuple):
    """Which piece of a sequence.

    Attributes:
        begin: its first time step, where that is known.
        chosen: [piece], 1 for it and 0 for the others, where it is not.
    """

    begin: int
    chosen: Array | None


class Kept(TypedDict):
    """What was done so far.

    Attributes:
        done: population name → its histories by name, [time, batch, neuron].
        back: weight name → the transposed weight of every piece, [piece, target, source].
    """

    done: dict[str, dict[str, Array]]
    back: dict[str, Array]


@dataclass(frozen=True)
class Rewinding:
    """What a network does in a sequence, in pieces between which its weights change.

    Args:
        stepwise: the way forward in time that it stands for.
        inputs: of the whole sequence, [time, batch, feature].
        size: time steps of a piece.
        panels, events: what loops in host memory take of what is kept.
    """

    stepwise: Stepwise
    inputs: Array
    size: int
    panels: dict[str, np.ndarray] = field(default_factory=dict)
    events: dict[str, Events] = field(default_factory=dict)

    @property
    def model(self) -> Model:
        """What credit is assigned in."""
        return self.stepwise.model

    @property
    def pieces(self) -> int:
        """How many there are."""
        return -(-self.inputs.shape[0] // self.size)

    @property
    def _down(self) -> bool:
        """Whether errors of an earlier time go down as well, and do so through the weights of that time."""
        return not isinstance(self.stepwise, LocalTraces) or bool(self.stepwise.unfolded)

    @property
    def _returning(self) -> list[Connection]:
        """The connections through which an error goes back in time, or down at an earlier time."""
        own = self.model.credit.temporal in ("full", "layer")
        connections = [c for c in self.model.graph.connections if c.source != INPUT]
        return [c for c in connections if self._down or (own and c.source == c.target and c.delay)]

    def _versions(self, back: dict[str, Array], panels: dict[str, np.ndarray]) -> Versions:
        filtered = frozenset(self.stepwise.leak) if isinstance(self.stepwise, LocalTraces) else frozenset()
        return Versions(self.size, back, self._down, filtered if self._down else frozenset(), panels)

    def start(self, probe: Trajectory) -> Kept:
        """Room for everything.

        Args:
            probe: the first time step, which stands for all that is to come: no error comes back from there, but
                derivatives have to be numbers.
        """
        nx, steps = self.model.nx, self.pieces * self.size
        done: dict[str, dict[str, Array]] = {}
        for name, record in probe.records.items():
            shape = (steps, *record.shape[1:])
            histories = {key: record.history(nx, key) for key in self._needed(name, record)}
            done[name] = {key: nx.broadcast_to(first, shape) + 0.0 for key, first in histories.items()}
        back = {}
        for connection in self._returning:
            ends = (self.model.graph.populations[end].size for end in (connection.target, connection.source))
            back[connection.weight] = nx.full((self.pieces, *ends), 0.0, self.model.dtype)
        return {"done": done, "back": back}

    def _needed(self, name: str, record: Record) -> list[str]:
        """The histories of a population that the way back asks for, and its output."""
        jacobians = record.derivatives(self.model.jacobians[name])
        asked = without_previous(key for key in jacobians.arguments if key not in self.model.shapes[name])
        return asked if Z in asked else [*asked, Z]

    def gradients(
        self, kept: Kept, place: Place, trajectory: Trajectory, signals: Signals, problem: Problem
    ) -> tuple[Kept, Parameters]:
        """What is kept after a piece, and dE/dparameter of its time steps.

        Args:
            kept: after the piece before; in host memory it is written over.
            place: of the piece.
            trajectory: what the network did in it.
            signals: ∂E/∂z_t and ∂E/∂s_t in it from the loss and regularisers.
            problem: the piece by itself: the network as it is in it.
        """
        nx, records = self.model.nx, trajectory.records
        carrying = problem._replace(alone=False)
        now: Kept = {
            "done": {name: {key: records[name].history(nx, key) for key in of} for name, of in kept["done"].items()},
            "back": {connection.weight: carrying.back(connection) for connection in self._returning},
        }
        arriving = {key: nx.broadcast_to(each, records[key[0]].shape) for key, each in signals.items()}
        host = host_of(nx)
        if host is None:
            return self._among_all(kept, now, place, arriving, problem)
        return kept, self._up_to_here(host, kept, now, place.begin, arriving, problem)

    def _among_all(
        self, kept: Kept, now: Kept, place: Place, arriving: Signals, problem: Problem
    ) -> tuple[Kept, Parameters]:
        """The same by operations on the arrays of the whole sequence."""
        nx = self.model.nx
        assert place.chosen is not None, "a place is told in numbers only in host memory"
        chosen = place.chosen > 0
        done = {
            name: {key: self._placed(chosen, now["done"][name][key], whole) for key, whole in histories.items()}
            for name, histories in kept["done"].items()
        }
        here = chosen[:, None, None]
        back = {name: nx.where(here, now["back"][name][None], before) for name, before in kept["back"].items()}
        whole = {key: self._placed(chosen, each, 0.0 * done[key[0]][Z]) for key, each in arriving.items()}
        inputs = self._filled_up(self.inputs, self.pieces * self.size)
        behind = self._behind(problem, inputs, done, {}, self._versions(back, {}))
        return {"done": done, "back": back}, gradients(behind, whole)

    def _placed(self, chosen: Array, piece: Array, whole: Array) -> Array:
        """An array [time, batch, neuron] of the whole sequence with a piece put into it."""
        nx, apart = self.model.nx, (self.pieces, self.size, *whole.shape[1:])
        piece = self._filled_up(piece, self.size)
        return nx.reshape(nx.where(chosen[:, None, None, None], piece[None], nx.reshape(whole, apart)), whole.shape)

    def _filled_up(self, array: Array, steps: int) -> Array:
        """An array [time, …] with zeros for what it lacks."""
        nx, rest = self.model.nx, steps - array.shape[0]
        return nx.concat([array, nx.full((rest, *array.shape[1:]), 0.0, nx.dtype(array))], 0) if rest else array

    def _up_to_here(
        self, host: HostBackend, kept: Kept, now: Kept, begin: int, arriving: Signals, problem: Problem
    ) -> Parameters:
        """The same in host memory, over what has been."""
        nx, trajectory, piece = self.model.nx, problem.trajectory, begin // self.size
        end = begin + trajectory.inputs.shape[0]
        for name, histories in now["done"].items():
            for key, history in histories.items():
                host.host(kept["done"][name][key])[begin:end] = host.host(history)
        for weight, back in now["back"].items():
            host.host(kept["back"][weight])[piece] = host.host(back)
        seen = {name: {key: each[:end] for key, each in of.items()} for name, of in kept["done"].items()}
        whole: Signals = {}
        for at, signal in arriving.items():
            whole[at] = nx.full((end, *signal.shape[1:]), 0.0, nx.dtype(signal))
            host.host(whole[at])[begin:end] = host.host(signal)
        events = {name: each[:end] for name, each in self._listed(host, kept, trajectory, begin).items()}
        versions = self._versions(kept["back"], self._panelled(host, kept, piece))
        return gradients(self._behind(problem, self.inputs[:end], seen, events, versions), whole)

    def _behind(
        self,
        problem: Problem,
        inputs: Array,
        seen: dict[str, dict[str, Array]],
        events: dict[str, Events],
        versions: Versions,
    ) -> Problem:
        """The problem of all that was done so far."""
        records = {name: Record.of(histories) for name, histories in seen.items()}
        return problem._replace(trajectory=Trajectory(inputs, records, None, events), versions=versions)

    def _panelled(self, host: HostBackend, kept: Kept, piece: int) -> dict[str, np.ndarray]:
        """The matrices of all pieces up to one in panels, as compiled loops want them."""
        from neko_rules.kernels.products import panels_of

        for weight, back in kept["back"].items():
            panels = panels_of(host.host(back)[piece], self.model.dtype)
            if weight not in self.panels:
                self.panels[weight] = np.empty((self.pieces, *panels.shape), panels.dtype)
            self.panels[weight][piece] = panels
        return self.panels

    def _listed(self, host: HostBackend, kept: Kept, trajectory: Trajectory, begin: int) -> dict[str, Events]:
        """Where the input and what loops stepped are not zero, of the whole sequence; of what is to come it is junk."""
        if not self.events:
            self.events[INPUT] = listed(contiguous(host.host(self.inputs)))
        for name, events in trajectory.events.items():
            if name == INPUT:
                continue
            if name not in self.events:
                index = np.empty((self.pieces * self.size, *events.index.shape[1:]), events.index.dtype)
                values = None if events.ones else host.host(kept["done"][name][Z])
                self.events[name] = Events(values, index, np.zeros(index.shape[:2], events.count.dtype), events.ones)
            whole, end = self.events[name], begin + len(events.count)
            whole.index[begin:end], whole.count[begin:end] = events.index, events.count
        return self.events
