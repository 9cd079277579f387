"""StreamLearner: learning on data without an end, one time step at a time, in memory that does not grow."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property
from operator import is_
from typing import TYPE_CHECKING, Any

import numpy as np

from neko_rules import arguments, tensor_file, trees
from neko_rules.errors import CheckpointError, DataError, IncompatibleError, NonFiniteError
from neko_rules.kernels.host import HostBackend, host_of, lends
from neko_rules.layers.moment import at_rest
from neko_rules.on_request import own_state
from neko_rules.replaced import forget_if_replaced
from neko_rules.rules.chained_pass import Begin, chained_pass, host_for_chains
from neko_rules.rules.kept import Kept
from neko_rules.rules.online import Online
from neko_rules.rules.penalties import OfRatesSoFar, SoFar
from neko_rules.rules.session import Session
from neko_rules.rules.stand_in import on_numpy
from neko_rules.rules.updates import Learning, learning
from neko_rules.targets import UNSUPERVISED, encode

if TYPE_CHECKING:
    from neko_rules.credit.spans import Spans
    from neko_rules.rules.learning_rule import LearningRule

FORMAT = "neko_rules stream 2"

_FEW = 10
"""Time steps that take about as long one by one as what comes before a pass through them all."""

Tree = Any


class StreamLearner:
    """An online rule on a stream: every ``observe`` is one time step of the network, its traces and its weights.

    The loss of a time step is its mean over the sequences that run side by side, with weight 1: the gradient of a
    stream of T steps is T times that of the same steps given to ``rule.gradients``, whose loss is a mean over them. A
    step without a target changes no weights; network and traces go on.

    On a processor with Numba a stream that has gone on for a while goes by a compiled chain that is kept at hand. When
    it begins to follows from how much was seen, so that a stream that was saved goes on by the same numbers. That time
    step takes seconds the first time on a machine, when the chain compiles, and a sixth of a second in later processes.

    Args:
        rule: an online rule, which is trained in place.
        batch_size: number of sequences that run side by side.

    Raises:
        IncompatibleError: the rule is not online, or its model reads its output at the end of a sequence.

    Example: a stream that is cut after two steps and goes on elsewhere.

        >>> import tempfile
        >>> from neko_rules import LIF, EProp, Evaluator
        >>> x, make = np.eye(3), lambda: EProp(Evaluator(LIF(8, 2, inputs=3)), online=True).stream()
        >>> learner, other = make(), make()
        >>> for t in range(2):
        ...     _ = learner.observe(x[t], 1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     learner.save(f"{folder}/learner.safetensors")
        ...     other.load(f"{folder}/learner.safetensors")
        >>> bool(np.array_equal(learner.observe(x[2], 0), other.observe(x[2], 0)))
        True
    """

    def __init__(self, rule: LearningRule, batch_size: int = 1) -> None:
        if not rule.online:
            raise IncompatibleError(
                "a stream has no end at which weights could change",
                received=f"{rule!r}",
                works="make the rule with online=True, or online=k for a change every k time steps",
            )
        if rule.model.network.readout != "sequence":
            raise IncompatibleError(
                "a stream is judged at every time step",
                received=f"a model with readout={rule.model.network.readout!r}",
                works="use readout='sequence'; a step without a target is given None",
            )
        self.rule = rule
        self.batch_size = arguments.integer("batch_size", batch_size, at_least=1)
        self.time = 0
        """Time steps since the beginning, or since ``reset``."""
        self._seen = 0
        self.loss = float("nan")
        """The loss of the last time step that had a target."""
        self._carried: Tree = None
        self._pending = 0
        self._session: Session | None = None
        self._refused = False
        self._often, self._last_begun = 0, 0
        self._penalised = bool(rule.regularizers)
        self._labels: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    # What a user calls.

    def observe(self, x: Any, target: Any = None) -> np.ndarray:
        """One time step: run the network, learn if there is a target, and return the output before the weights change.

        Args:
            x: [feature], or [batch, feature] where sequences run side by side.
            target: what one time step of ``y`` would be: a label, a distribution or values, with a first axis of the
                batch if x has one; None where there is none, and the label -1 for a sequence that has none.

        Returns:
            What the loss observes, the output or its membrane: [n_out], or [batch, n_out].

        Raises:
            DataError: a shape, type or label does not fit.
            NonFiniteError: a parameter became NaN or infinite; the state is kept as it was before this step.
        """
        inputs, single = self._inputs(x)
        self._look_for_changes()
        session = self._current_session(inputs.shape[-1])
        wanted = None if target is None else self._target_of(target, single)
        output = None if session is None else self._in_session(session, inputs, wanted)
        if output is None:
            self._leave()
            output = self._run(inputs) if wanted is None else self._learn(inputs, wanted)
        self.time += 1
        self._seen += 1
        return output[0] if single else output

    def observe_many(self, x: Any, targets: Any = None) -> np.ndarray:
        """Several time steps in one call, with the same result as one call each; faster where there is a compiled loop.

        Args:
            x: [time, feature] or [time, batch, feature].
            targets: one entry per time step, as ``observe`` takes them; None where no step has one.

        Returns:
            [time, n_out] or [time, batch, n_out].
        """
        inputs, single = self._inputs(x, many=True)
        if targets is not None and len(targets) != len(inputs):
            raise DataError("targets must have one entry per time step", received=f"{len(targets)} for {len(inputs)}")
        whole = targets is not None and self.rule.online == 1 and not any(target is None for target in targets)
        # What is at hand has taken a few steps before all is laid out for as many.
        whole = whole and (self._session is None or len(inputs) > _FEW)
        wanted = self._target(targets, single, len(inputs)) if whole else self._nothing()
        if not wanted[1].any(axis=-1).all():
            each = [None] * len(inputs) if targets is None else targets
            return np.stack([self.observe(one, target) for one, target in zip(np.asarray(x), each, strict=True)])
        self._look_for_changes()
        self._leave()
        outputs = self._learn_many(inputs, *wanted)
        return outputs[:, 0] if single else outputs

    def reset(self) -> None:
        """Begin a new sequence: states and traces are zero again.

        Weights, optimiser and, between two changes of the weights, the gradient of the steps so far stay as they are.
        """
        total = self._carry()[1] if self._pending else None
        self._carried, self._session, self.time = None, None, 0
        if total is not None:
            self._carried = self._carry()[0], total

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all that the next time step depends on, so that at every moment the file is the new one or the old one.

        Raises:
            CheckpointError: the file cannot be written.
        """
        nx = self.rule.nx
        arrays = {f"rule/{name}": value for name, value in self.rule.state().items()}
        for number, leaf in enumerate(trees.leaves(self._carry())):
            arrays[f"stream/{number:04}"] = nx.to_numpy(leaf)
        about = {
            "format": FORMAT,
            "rule": repr(self.rule),
            "batch_size": self.batch_size,
            "time": self.time,
            "seen": self._seen,
            "pending": self._pending,
            "penalised": self._penalised,
        }
        tensor_file.write(path, arrays, "a stream's file", about)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Go on from a file that ``save`` wrote, with a rule and a model made alike.

        Raises:
            CheckpointError: the file cannot be read, or belongs to another rule or model.
        """
        arrays, said = tensor_file.read(path, "a stream's file")
        about = said or {}
        if about.get("format") != FORMAT:
            raise CheckpointError("a stream's file must have been written by save", received=str(path))
        for name, here in (("rule", repr(self.rule)), ("batch_size", self.batch_size)):
            if about[name] != here:
                raise CheckpointError(
                    f"a stream must go on with the {name} it was begun with",
                    received=f"{here!r} instead of {about[name]!r}",
                )
        self.rule.load_state({name.removeprefix("rule/"): a for name, a in arrays.items() if name.startswith("rule/")})
        self._pending = 0
        self.reset()
        first = self._carry()
        own = [name for name in sorted(arrays) if name.startswith("stream/")]
        shapes = [tuple(leaf.shape) for leaf in trees.leaves(first)]
        if shapes != [arrays[name].shape for name in own]:
            raise CheckpointError("a stream's file must have the states of this model", received=str(path))
        nx = self.rule.nx
        self._carried = trees.rebuilt(first, iter([nx.asarray(arrays[name]) for name in own]))
        self.time, self._seen, self._pending = (int(about[name]) for name in ("time", "seen", "pending"))
        self._penalised = bool(about["penalised"])

    def __getstate__(self) -> dict[str, Any]:
        """What a copy is made of: no session, whose chain changes memory of its own."""
        self._leave()
        return own_state(self)

    def _look_for_changes(self) -> None:
        """Forget what was made for what has been replaced; begin rates anew where there were no penalties before."""
        if forget_if_replaced(self, self.rule):
            self._leave()
            # The session that begins next is not counted with those that have lasted for few steps.
            self._refused, self._often, self._last_begun = False, 0, self._seen - _FEW
        # Rates so far are those since there are penalties.
        penalised = bool(self.rule.regularizers)
        if penalised and not self._penalised:
            self._leave()
            moving, total = self._carry()
            fresh = self._online.fresh(self.batch_size)
            self._carried = {**moving, "clock": fresh["clock"], "rates": fresh["rates"]}, total
        self._penalised = penalised

    # By a chain that is at hand.

    def _current_session(self, features: int) -> Session | None:
        """The session, or one that begins here; None where a time step goes another way."""
        rule, session = self.rule, self._session
        if session is not None and all(map(is_, rule.held, session.held)):
            return session if _by_loops(rule) else None
        # Somebody else changed the weights, or looked after them; or something was replaced.
        self._leave()
        self._labels.clear()
        self._session = self._begun(features)
        return self._session

    def _in_session(
        self, session: Session, inputs: np.ndarray, target: tuple[np.ndarray, np.ndarray] | None
    ) -> np.ndarray | None:
        """The output of a time step by a session, with what it learns kept; None where it goes another way."""
        rule = self.rule
        session.rule.steps = rule.steps
        adding, updating = self._pending > 0, target is not None and self._pending + 1 == rule.online
        found = session.step(inputs, *(target or self._nothing()), adding, updating)
        if found is None:
            self._refused = session.lacking
            return None
        output, (loss, count) = found
        if target is not None:
            self.loss, self._lost = _mean(loss, count), (loss, count)
            self._pending = 0 if updating else self._pending + 1
            rule.steps += updating
        return output

    def _begun(self, features: int) -> Session | None:
        """A session that goes on from here; None where there is none, or not yet any use for one."""
        rule = self.rule
        if rule.regularizers or not _by_loops(rule):
            return None
        # Compiling takes seconds: what was seen has to have been worth a chain, as it is with batches.
        if not rule.chains().worthwhile(self._seen, self.batch_size, features):
            return None
        lasted = self._seen - self._last_begun
        # Between others who change the weights, a session of one time step after the other is not worth it.
        if self._refused or (self._often >= _FEW and lasted < 100 * _FEW):
            return None
        self._often = self._often + 1 if lasted < _FEW else 0
        self._last_begun = self._seen
        twin = rule if host_of(rule.nx) is not None else on_numpy(rule)
        usable = twin is not None and rule.updates_plainly and twin.chains().has_windows
        spans = Online(twin, rule.online).windows if twin is not None and usable else None
        self._refused = twin is None or spans is None or twin.chains().lacking
        if twin is None or spans is None or self._refused:
            return None
        moving, total = trees.mapped(rule.nx.to_numpy, self._carry())
        self._lost = moving["loss"]
        if twin is not rule:
            own, memory = (trees.mapped(rule.nx.to_numpy, tree) for tree in rule.prepared())
            twin.take(twin.model.network.values, own, memory, 0)
        begin = Begin(moving["network"], moving["credit"]) if self.time else None
        session = Session(twin, spans, self.batch_size, features, begin, total)
        rule.hold(session.held, rule.steps)
        return session

    def _leave(self) -> None:
        """End a session, and take over where it is."""
        if self._session is not None:
            self._carried, self._session = self._carry(), None

    def _nothing(self) -> tuple[np.ndarray, np.ndarray]:
        """What stands for the target of a time step that has none."""
        network = self.rule.model.network
        dense = np.zeros((self.batch_size, self.rule.model.scores), network.dtype)
        if network.task_type == "classification":
            dense[:, 0] = 1
        return dense, np.zeros(self.batch_size, network.dtype)

    def _target_of(self, target: Any, single: bool) -> tuple[np.ndarray, np.ndarray] | None:
        """The target of one time step, None where no sequence has one; that of a label is looked up."""
        known = single and isinstance(target, (int, np.integer)) and not isinstance(target, bool)
        if known and target in self._labels:
            return self._labels[int(target)]
        found = self._target(target, single)
        if not found[1].any():
            return None
        if known and self._session is not None:
            self._labels[int(target)] = found
        return found

    # One time step.

    def _run(self, inputs: np.ndarray) -> np.ndarray:
        values, own, moving, total = self._before()
        moving, _, output = self._compiled_step(values, own, moving, total, self._given(inputs, None), self._signs())
        self._keep(moving, total)
        return self.rule.nx.to_numpy(output)

    def _learn(self, inputs: np.ndarray, target: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        rule, nx = self.rule, self.rule.nx
        values, own, moving, total = self._before()
        given, signs = self._given(inputs, target), self._signs()
        if self._pending + 1 < rule.online:
            moving, total, output = self._compiled_step(values, own, moving, total, given, signs)
            self._keep(moving, total)
            self._pending += 1
            self.loss = _mean(nx.to_numpy(moving["loss"][0]), nx.to_numpy(moving["loss"][1]))
            return nx.to_numpy(output)
        memory = rule.prepared()[1]
        rates = rule.rates(1)
        result = self._compiled_update(values, own, memory, moving, total, given, signs, self._noise(), *rates)
        self._take(result, updates=1)
        self._pending = 0
        return nx.to_numpy(result[-2])

    def _learn_many(self, inputs: np.ndarray, dense: np.ndarray, mask: np.ndarray) -> np.ndarray:
        rule, nx = self.rule, self.rule.nx
        values, own, moving, total = self._before()
        given = self._given(inputs, (dense, mask))
        drawn = [rule.draw_at(1, self.batch_size, (1, self._seen + k)) for k in range(len(inputs))]
        dtype = rule.model.network.dtype
        signs, noise = (
            {name: nx.asarray(np.stack([one[name][0] for one in drawn]), dtype) for name in drawn[0] if kind in name}
            for kind in ("signs/", "noise/")
        )
        memory, rates = rule.prepared()[1], rule.rates(len(inputs))
        result = self._compiled_updates(values, own, memory, moving, total, given, signs, noise, *rates)
        self._take(result, updates=len(inputs))
        self.time += len(inputs)
        self._seen += len(inputs)
        return nx.to_numpy(result[-2])

    def _take(self, result: Tree, updates: int) -> None:
        values, own, memory, moving, total, _, finite = result
        rule, nx = self.rule, self.rule.nx
        for name, flag in finite.items():
            if not bool(nx.to_numpy(flag)):
                raise NonFiniteError(name, rule.steps + updates)
        rule.take(values, own, memory, updates)
        self._keep(moving, total)
        self.loss = _mean(nx.to_numpy(moving["loss"][0]), nx.to_numpy(moving["loss"][1]))

    def _keep(self, moving: Tree, total: Tree) -> None:
        """Carry on, in the order of before: a compiled function may return a dict in another."""
        self._carried = trees.ordered((moving, total), self._carry())

    def _stepped(self, values: Any, own: Any, moving: Tree, total: Tree, given: Tree, signs: Tree) -> Tree:
        moving, found, output = self._online.step(moving, values, own, given, signs, 1.0)
        return moving, {name: total[name] + found[name] for name in total}, output

    def _updated(
        self,
        values: Any,
        own: Any,
        memory: Any,
        moving: Tree,
        total: Tree,
        given: Tree,
        signs: Tree,
        noise: Tree,
        rates: Any,
        counts: Any,
    ) -> Tree:
        moving, total, output = self._stepped(values, own, moving, total, given, signs)
        kept = self.rule.applied(values, own, memory, noise, total, rates[0], counts[0])
        finite = self.rule.finite(kept, moving["loss"][0])
        return *kept[:3], moving, {name: 0 * each for name, each in total.items()}, output, finite

    def _updated_often(
        self,
        values: Any,
        own: Any,
        memory: Any,
        moving: Tree,
        total: Tree,
        given: Tree,
        signs: Tree,
        noise: Tree,
        rates: Any,
        counts: Any,
    ) -> Tree:
        nx = self.rule.nx
        host, spans = host_for_chains(self.rule, given["x"]), self._online.windows
        if host is not None and spans is not None:
            updates = learning(self.rule, host, values, own, memory, noise, rates, counts)
            learned = self._by_chains(host, spans, moving, total, given, updates)
            if learned is not None:
                return learned
        total = {name: 0 * each for name, each in total.items()}

        def body(carry: Tree, at: Tree) -> tuple[Tree, Tree]:
            values, own, memory, moving = carry
            step, signs, noise, rate, count = at
            moving, found, output = self._stepped(values, own, moving, total, step, signs)
            kept = self.rule.applied(values, own, memory, noise, found, rate, count)
            return (*kept[:3], moving), output

        carry = (values, own, memory, moving)
        inputs = (given, signs, noise, rates, counts)
        (values, own, memory, moving), outputs = trees.scan(nx, body, carry, inputs, rates.shape[0])
        finite = self.rule.finite(Kept(values, own, memory), moving["loss"][0])
        return values, own, memory, moving, total, outputs, finite

    def _by_chains(
        self, host: HostBackend, spans: Spans, moving: Tree, total: Tree, given: Tree, updates: Learning
    ) -> Tree | None:
        """What ``_updated_often`` returns, by a compiled loop for every time step; None where there is none."""
        begin = Begin(moving["network"], moving["credit"]) if self.time else None
        penalties = None
        if self.rule.regularizers:
            before = trees.mapped(host.host, (moving["clock"], moving["rates"]))
            penalties = OfRatesSoFar(self.rule, 1, SoFar(*before))
        went = chained_pass(self.rule, host, given, 1, spans, updates, begin, ends=False, penalties=penalties)
        if went is None:
            return None
        kept, now = updates.after(), {} if penalties is None else penalties.now._asdict()
        after = {"network": went.states, "credit": went.credit, "loss": went.last, **now}
        after = trees.mapped(host.from_host, after)
        finite = self.rule.finite(kept, after["loss"][0])
        return *kept[:3], {**moving, **after}, total, host.from_host(went.outputs), finite

    @cached_property
    def _online(self) -> Online:
        return Online(self.rule, self.rule.online)

    @cached_property
    def _compiled_step(self) -> Callable[..., Any]:
        return self.rule.nx.jit(self._stepped)

    @cached_property
    def _compiled_update(self) -> Callable[..., Any]:
        return self.rule.nx.jit(self._updated)

    @cached_property
    def _compiled_updates(self) -> Callable[..., Any]:
        return self.rule.nx.jit(self._updated_often)

    # What is carried, and what comes in.

    def _carry(self) -> Tree:
        """State of network and traces, and the gradient since the last change of the weights."""
        if self._session is not None and self._session.begun:
            states, credit, total = self._session.went()
            moving, total = self._carried[0], trees.mapped(self.rule.nx.asarray, total)
            went = {"network": states, "credit": credit, "loss": self._lost}
            after = {**moving, **trees.mapped(self.rule.nx.asarray, went)}
            return trees.ordered((after, total), self._carried)
        if self._carried is None:
            rule = self.rule
            nx, network = rule.nx, rule.model.network
            network.require_built()
            zero = nx.full((), 0.0, network.dtype)
            rest = at_rest(nx, network.graph, self.batch_size, network.inputs or 0, network.dtype)
            credit = rule.stepwise.start(self.batch_size)
            moving = {"network": rest, "loss": (zero, zero), **self._online.fresh(self.batch_size), "credit": credit}
            total = {name: nx.full(tuple(value.shape), 0.0, network.dtype) for name, value in network.values.items()}
            self._carried = (moving, total)
        return self._carried

    def _before(self) -> tuple[Any, Any, Tree, Tree]:
        moving, total = self._carry()
        return self.rule.model.network.values, self.rule.prepared()[0], moving, total

    def _signs(self) -> Tree:
        drawn = self.rule.draw_at(1, self.batch_size, (1, self._seen))
        return self._first_of(drawn, "signs/")

    def _noise(self) -> Tree:
        return self._first_of(self.rule.draw_at(1, self.batch_size, (1, self._seen)), "noise/")

    def _first_of(self, drawn: dict[str, np.ndarray], kind: str) -> Tree:
        dtype = self.rule.model.network.dtype
        return {name: self.rule.nx.asarray(a[0], dtype) for name, a in drawn.items() if name.startswith(kind)}

    def _inputs(self, x: Any, many: bool = False) -> tuple[np.ndarray, bool]:
        """x [batch, feature], or [time, batch, feature] for many steps; and whether it was given without the batch."""
        network = self.rule.model.network
        try:
            array = np.asarray(x, dtype=network.dtype)
        except (TypeError, ValueError) as error:
            raise DataError("x must be an array of numbers", received=str(error)) from error
        single = self.batch_size == 1 and array.ndim == 1 + many
        array = np.expand_dims(array, -2) if single else array
        if array.ndim != 2 + many or array.shape[-2] != self.batch_size or 0 in array.shape:
            wanted = "[feature] or [1, feature]" if self.batch_size == 1 else f"[{self.batch_size}, feature]"
            wanted += ", with an axis of time before" if many else ""
            raise DataError(f"x must have shape {wanted}", received=f"shape {np.shape(x)}")
        if not np.isfinite(array).all():
            raise DataError("x must be finite", received="NaN or infinite values")
        network.build(array.shape[-1])
        return array, single

    def _target(self, target: Any, single: bool, steps: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Dense target [batch, n_out] and mask [batch]; with an axis of time before, for a number of steps."""
        network, loss = self.rule.model.network, self.rule.model.loss
        value = np.asarray(target)
        rows = self.batch_size * (steps or 1)
        lead = () if steps is None else (steps,)
        if not single and value.shape[: len(lead) + 1] != (*lead, self.batch_size):
            raise DataError(f"targets must have one entry per sequence ({self.batch_size})", f"shape {value.shape}")
        inner = value.shape[len(lead) :] if single else value.shape[len(lead) + 1 :]
        value = value.reshape(rows, *inner)
        # Every time step is an example of its own, of one step.
        classes = network.task_type == "classification" and value.ndim == 1
        # A label is one for the whole of an example, which has no label for not counting.
        absent = value == UNSUPERVISED if classes else np.zeros(rows, bool)
        targets = encode(
            np.where(absent, 0, value) if classes else value[:, None, ...],
            task_type=network.task_type,
            batch=rows,
            steps=1,
            outputs=self.rule.model.scores,
            labels_only=loss.target_kind == "labels",
        )
        if not targets.one_hot:
            loss.check_target(targets.dense[targets.mask.astype(bool)])
        dense, mask = targets.dense[0].astype(network.dtype), (targets.mask[0] * ~absent).astype(network.dtype)
        shape = (*lead, self.batch_size)
        return dense.reshape(*shape, dense.shape[-1]), mask.reshape(shape)

    def _given(self, inputs: np.ndarray, target: tuple[np.ndarray, np.ndarray] | None) -> Tree:
        network, nx = self.rule.model.network, self.rule.nx
        dense, mask = target or self._nothing()
        weight = mask / np.maximum(1.0, mask.sum(axis=-1, keepdims=True))
        return {
            "x": nx.asarray(inputs),
            "target": nx.asarray(dense),
            "mask": nx.asarray(mask),
            "weight": nx.asarray(weight.astype(network.dtype)),
        }

    def __repr__(self) -> str:
        return f"StreamLearner({self.rule!r}, batch_size={self.batch_size}, time={self.time})"


def _by_loops(rule: LearningRule) -> bool:
    """Whether NumPy's loops may take its steps."""
    return host_of(rule.nx) is not None or lends(rule.nx)


def _mean(total: np.ndarray, count: np.ndarray) -> float:
    return float(total) / float(count) if count else float("nan")
