"""GradientComparison: one rule trains, and in every batch the others say what they would have done from there."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from neko_rules import arguments
from neko_rules.errors import (
    ArgumentError,
    ComparisonError,
    IncompatibleError,
    NekoError,
    NonFiniteError,
    nearest,
)
from neko_rules.kernels.host import by_library
from neko_rules.rules.rule import Rule
from neko_rules.trainers.callbacks import Callback
from neko_rules.trainers.comparison_folder import QUANTITIES, ComparisonFolder
from neko_rules.trainers.comparison_result import Comparison
from neko_rules.trainers.deviation import STATISTICS, Moments, compared, groups
from neko_rules.trainers.trainer import TrainableRule, Trainer

SMALLEST_NORM = 1e-8
"""A reference whose norm is below this is a dead network's: what deviates from it says nothing."""

Arrays = dict[str, np.ndarray]


class GradientComparison:
    """Trains by one rule and compares, batch by batch, what it and other rules make of the same weights and data.

    The primary rule trains as it always does. Before each batch every other rule is given the primary's weights, on
    whichever backend it runs; its own state (feedback weights, the optimiser's memory) is its own. Recorded are the
    gradients dE/dparameter and the changes Δparameter of one step, which are each other's negative under the ``naive``
    optimiser. A rule that is no gradient rule, but has ``step``, is compared by its changes.

    Args:
        primary: the rule that trains.
        others: name → rule. They are cloned where they can be, so that nothing is changed that the caller holds.
        reference: name of the rule that all are compared with; the primary by default.
        name: what the primary is called; by default the name of its class in small letters.
        folder: where figures and matrices are written; by default a temporary folder that is removed with the result.
        keep_every: every so many batches, beginning with the first, gradients and changes are kept in full; None for
            never.
        chunk: batches per file; figures of so many batches are in memory at a time.
        callbacks: of the training.

    Raises:
        ArgumentError: a name is taken twice or unknown.
        IncompatibleError: two rules' networks have other parameters, or a rule that cannot be cloned shares its
            network with another.

    Example:
        >>> from neko_rules import ALIF, BPTT, EProp, Evaluator
        >>> rng = np.random.default_rng(0)
        >>> x, y = 3 * rng.normal(size=(8, 10, 5)), rng.integers(2, size=8)
        >>> model = Evaluator(ALIF(12, 2))
        >>> comparison = GradientComparison(BPTT(model), {"random": EProp(model, mode="random")}, keep_every=1)
        >>> result = comparison.train(x, y, epochs=2, batch_size=4)
        >>> result.statistic("random", "hidden.recurrent.weight", "cosine").shape
        (4,)
        >>> bool(np.allclose(result.statistic("random", "readout.input.weight", "cosine"), 1))
        True
    """

    def __init__(
        self,
        primary: TrainableRule,
        others: Mapping[str, Any],
        *,
        reference: str | None = None,
        name: str | None = None,
        folder: str | Path | None = None,
        keep_every: int | None = 100,
        chunk: int = 256,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        if not isinstance(others, Mapping) or not others:
            raise ArgumentError(
                "others must be a mapping of names to at least one rule",
                received=others,
                works="for example {'random': EProp(model, mode='random')}",
            )
        called = type(primary).__name__.lower() if name is None else str(name)
        for each in (called, *others):
            if not isinstance(each, str) or not each or "/" in each:
                raise ArgumentError("the name of a compared rule must be a word without '/'", received=each)
        if called in others:
            raise ArgumentError(
                "every compared rule needs a name of its own",
                received=f"{called!r} for the primary and another rule",
                works="give the primary another with name=",
            )
        self.primary, self.name = primary, called
        self.rules: dict[str, Any] = {called: primary}
        for each, rule in others.items():
            self.rules[each] = _own(each, rule, self.rules)
        self.reference = called if reference is None else reference
        if self.reference not in self.rules:
            raise ArgumentError(
                "the reference must be one of the rules", received=reference, works=nearest(str(reference), self.rules)
            )
        self.folder = None if folder is None else Path(folder)
        self.keep_every = None if keep_every is None else arguments.integer("keep_every", keep_every, at_least=1)
        self.chunk = arguments.integer("chunk", chunk, at_least=1)
        self.callbacks = list(callbacks)

    def train(
        self, x: Any, y: Any = None, epochs: int = 1, batch_size: int | None = None, **options: Any
    ) -> Comparison:
        """Train the primary and compare in every batch.

        Args:
            x: inputs, [examples, time, feature], or an iterable of batches (x, y) without y.
            y: targets.
            epochs: how often every example is used.
            batch_size: examples per update, by default 128.
            options: as for ``Trainer.train``, apart from ``resume``.

        Raises:
            ComparisonError: no neuron of the reference's network spikes, or the norm of the reference is below 1e-8.
            NekoError: as for ``Trainer.train``.
        """
        if "resume" in options:
            raise ArgumentError("a comparison cannot be resumed", works="leave resume out")
        path = Path(tempfile.mkdtemp(prefix="neko-comparison-")) if self.folder is None else self.folder
        watched = _Watched(self, path)
        try:
            try:
                history = Trainer(watched, self.callbacks).train(x, y, epochs, batch_size, **options)
            finally:
                watched.close()
        except BaseException:
            if self.folder is None:
                shutil.rmtree(path, ignore_errors=True)
            raise
        return Comparison(path, history, temporary=self.folder is None)


def _own(name: str, rule: Any, taken: Mapping[str, Any]) -> Any:
    """The rule on a network that no other rule of the comparison changes."""
    if not hasattr(rule, "step") or not hasattr(rule, "model"):
        raise ArgumentError("a comparison takes learning rules", received=f"{name}: {rule!r}")
    if hasattr(rule, "clone"):
        return rule.clone()
    if any(rule.model.network is other.model.network for other in taken.values()):
        raise IncompatibleError(
            "a rule that cannot be cloned needs a network of its own to be compared",
            received=f"{name}: {type(rule).__name__}",
            works="build it on model.clone()",
        )
    return rule


class _ComparedModels:
    """The primary's model to the trainer, which makes sure that all the others fit the same data and parameters."""

    def __init__(self, rules: Mapping[str, Any], primary: str) -> None:
        self._rules, self._primary = rules, primary

    def check(self, x: np.ndarray, y: np.ndarray, /, *, whole: bool = True) -> None:
        """Refuse data that do not fit one of the models, and models whose parameters are not the same."""
        for rule in self._rules.values():
            rule.model.check(x, y, whole=whole)
        shapes = {name: _shapes(rule) for name, rule in self._rules.items()}
        for name, found in shapes.items():
            if found != shapes[self._primary]:
                differing = set(found.items()) ^ set(shapes[self._primary].items())
                raise IncompatibleError(
                    "compared rules need networks with the same parameters",
                    received=f"{name} and {self._primary} differ in {min(differing)[0]}",
                    works="build them on clones of one model",
                )
        wanted = self._rules[self._primary].model.network.masks
        for name, rule in self._rules.items():
            masks = rule.model.network.masks
            for each in wanted.keys() | masks.keys():
                if each not in masks or each not in wanted or not np.array_equal(masks[each], wanted[each]):
                    raise IncompatibleError(
                        "compared rules need networks with the same synapses",
                        received=f"{name} and {self._primary} differ in {each}",
                        works="build them on clones of one model, or give all one connectivity_seed",
                    )

    def __getattr__(self, name: str) -> Any:
        # What callbacks ask for beside, such as the network, is the primary's.
        return getattr(self.__dict__["_rules"][self.__dict__["_primary"]].model, name)

    def evaluate(self, x: Any, y: np.ndarray | None, /, *, batch_size: int) -> Mapping[str, float]:
        """The primary's loss and metrics."""
        return dict(self._rules[self._primary].model.evaluate(x, y, batch_size=batch_size))


def _shapes(rule: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in rule.model.network.values.items()}


class _Watched:
    """The primary rule to the trainer; every step of it is a step of all rules from the same weights."""

    def __init__(self, comparison: GradientComparison, path: Path) -> None:
        self.comparison, self.path = comparison, path
        self.rules, self.primary = comparison.rules, comparison.primary
        self.model = _ComparedModels(self.rules, comparison.name)
        self._folder: ComparisonFolder | None = None
        self._parts: dict[str, tuple[str, ...]] = {}
        self._synapses: dict[str, np.ndarray] = {}
        self._moments: dict[tuple[str, str, str], Moments] = {}
        self._batch = 0
        # Loops of NumPy's that took another library's steps would be compared with themselves.
        several = len({rule.model.network.backend for rule in self.rules.values()}) > 1
        self._alone = by_library if several else nullcontext

    def step(self, x: np.ndarray, y: np.ndarray, /) -> Mapping[str, float]:
        """One step of every rule from the primary's weights."""
        if self._folder is None:
            self._begin(x)
        network = self.primary.model.network  # type: ignore[attr-defined]
        start = dict(network.values)
        before: Arrays = {name: network.nx.to_numpy(value) for name, value in start.items()}
        seen: dict[str, dict[str, Arrays | None]] = {quantity: {} for quantity in QUANTITIES}
        figures: Mapping[str, float] = {}
        # What an encoder draws for a batch is the same for all rules, however many updates each makes of one.
        update = getattr(self.primary, "steps", 0)
        for name, rule in self.rules.items():
            held = before
            if rule is not self.primary:
                held = _synchronised(rule, network.nx, network.dtype, start, before)
            try:
                with self._alone():
                    made, gradient = _observed(rule, x, y, update)
            except NonFiniteError as error:
                whose = error.quantity if rule is self.primary else f"{error.quantity} of {name!r}"
                raise NonFiniteError(whose, error.step, error.works) from error
            after = rule.model.network.values
            nx = rule.model.network.nx
            seen["gradient"][name] = gradient
            seen["change"][name] = {key: nx.to_numpy(after[key]) - held[key] for key in before}
            if rule is self.primary:
                figures = made
        self._record(seen, float(figures["loss"]))
        return figures

    @property
    def in_epochs(self) -> bool:
        """Whether a schedule of any rule counts epochs."""
        return any(getattr(rule, "in_epochs", False) for rule in self.rules.values())

    def pace(self, batches: int, x: np.ndarray) -> None:
        """Tell all rules how long an epoch is, of which each makes its own number of updates."""
        for rule in self.rules.values():
            if getattr(rule, "in_epochs", False):
                rule.pace(batches, x)

    def gradients(self, x: np.ndarray, y: np.ndarray) -> Arrays:
        """Those of the primary."""
        found: Arrays = self.primary.gradients(x, y)  # type: ignore[attr-defined]
        return found

    def state(self) -> dict[str, np.ndarray]:
        """That of the primary."""
        return self.primary.state()

    def load_state(self, state: dict[str, np.ndarray], /) -> None:
        """The inverse of ``state``."""
        self.primary.load_state(state)

    def close(self) -> None:
        """Write what is still in memory."""
        if self._folder is not None:
            self._folder.flush()
            self._folder.write_moments(self._moments)

    def _begin(self, x: np.ndarray) -> None:
        """Refuse a dead network, and write down what is compared."""
        comparison = self.comparison
        refuse_silence(comparison.rules[comparison.reference].model, x, comparison.reference)
        shapes = _shapes(self.primary)
        self._parts = groups(list(shapes))
        self._synapses = self.primary.model.network.masks  # type: ignore[attr-defined]
        about = {
            "primary": comparison.name,
            "reference": comparison.reference,
            "rules": [name for name in self.rules if name != comparison.reference],
            "described": {name: repr(rule) for name, rule in self.rules.items()},
            "backends": {name: rule.model.network.backend for name, rule in self.rules.items()},
            "parameters": {name: list(shape) for name, shape in shapes.items()},
            "groups": list(self._parts),
            "quantities": list(QUANTITIES),
            "statistics": list(STATISTICS),
        }
        self._folder = ComparisonFolder(self.path, about, self._synapses, comparison.chunk)

    def _record(self, seen: dict[str, dict[str, Arrays | None]], loss: float) -> None:
        assert self._folder is not None, "begun with the first batch"
        reference = self.comparison.reference
        others = [name for name in self.rules if name != reference]
        values = np.full((len(others), len(QUANTITIES), len(self._parts), len(STATISTICS)), np.nan)
        self._refuse_dead(seen["gradient"][reference] or seen["change"][reference] or {})
        for place, quantity in enumerate(QUANTITIES):
            truth = seen[quantity][reference]
            for row, name in enumerate(others):
                given = seen[quantity][name]
                if truth is None or given is None:
                    continue
                values[row, place] = compared(self._learned(truth), self._learned(given), self._parts)
                for key in truth:
                    moments = self._moments.setdefault((quantity, name, key), Moments())
                    moments.add(given[key].astype(np.float64) - truth[key])
        self._folder.append(self._batch, loss, values)
        if self.comparison.keep_every is not None and self._batch % self.comparison.keep_every == 0:
            self._folder.keep(self._batch, seen)
        self._batch += 1

    def _learned(self, arrays: Arrays) -> Arrays:
        """Arrays without the entries that stay zero, where there is no synapse."""
        return {name: a[self._synapses[name]] if name in self._synapses else a for name, a in arrays.items()}

    def _refuse_dead(self, truth: Arrays) -> None:
        """Refuse a reference without length, and weights out of neurons of which none has spiked."""
        norm = float(np.sqrt(sum(float(np.sum(np.square(each, dtype=np.float64))) for each in truth.values())))
        if norm < SMALLEST_NORM:
            raise ComparisonError(
                f"the reference of a comparison must have a norm of at least {SMALLEST_NORM:g}",
                received=f"{norm:.3g} for {self.comparison.reference!r} in batch {self._batch}",
                works="use data that the network has not learned perfectly, or larger weights",
            )
        network = self.comparison.rules[self.comparison.reference].model.network
        if not network.spiking:
            return
        leaving = [c.weight for c in network.graph.connections if c.source in network.spiking]
        if leaving and all(name in truth and not truth[name].any() for name in leaving):
            raise _silent(self.comparison.reference, f"batch {self._batch}")


def refuse_silence(model: Any, x: np.ndarray, name: str) -> None:
    """Refuse a network with spiking neurons none of which spikes on a batch.

    Raises:
        ComparisonError: that is so.
    """
    spiking = model.network.spiking
    if not spiking:
        return
    trajectory = model.trajectory(x)
    if not any(np.any(trajectory.z(population)) for population in spiking):
        raise _silent(name, "the first batch")


def _silent(name: str, where: str) -> NekoError:
    return ComparisonError(
        "gradients can be compared only on a network in which neurons spike",
        received=f"no spike in {where} of {name!r}",
        works="use larger first weights (initializer gain), stronger inputs or a lower threshold",
    )


def _synchronised(rule: Any, nx: Any, dtype: str, values: Mapping[str, Any], before: Arrays) -> Arrays:
    """Give a rule the primary's weights; they are what it holds then, as NumPy arrays of its own type."""
    network = rule.model.network
    if network.nx is nx and network.dtype == dtype:
        # Nothing changes a parameter in place, so that arrays of the same library can be shared.
        network.values = {name: values[name] for name in network.values}
        return before
    network.set_parameters(before)
    return before if network.dtype == dtype else {name: each.astype(network.dtype) for name, each in before.items()}


def _observed(rule: Any, x: np.ndarray, y: np.ndarray, update: int) -> tuple[Mapping[str, float], Arrays | None]:
    """Figures and gradient of one step; no gradient of a rule that has none."""
    if isinstance(rule, Rule):
        observed = type(rule)._judged_gradients is not Rule._judged_gradients
        if rule.model.encoder is not None:
            figures, found = rule.stepped(rule.model.batch(x, y, update), observed)
            return figures, found if observed else None
        return rule.observed_step(x, y) if observed else (rule.step(x, y), None)
    gradient = None
    if hasattr(rule, "gradients"):
        gradient = {name: np.asarray(value) for name, value in rule.gradients(x, y).items()}
    return rule.step(x, y), gradient
