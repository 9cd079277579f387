"""Samples: draws of weights, and what can be read from them: predictions, diagnostics, ArviZ' data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from neko_rules import arguments
from neko_rules.probabilistic.chain_files import STATISTICS, ChainRecord
from neko_rules.probabilistic.examples import Examples
from neko_rules.probabilistic.likelihood import foretold
from neko_rules.probabilistic.predictive import Predictive, PredictiveValues
from neko_rules.samplers import ess_bulk, ess_tail, r_hat

if TYPE_CHECKING:
    from neko_rules.probabilistic.posterior import Posterior

PROBED = 16
"""Training examples whose predictions are followed over the draws, to see whether the chains agree on them."""


class Samples:
    """Draws from a posterior.

    Args:
        posterior: what was sampled, as it was then.
        records: the draws of every chain, in memory or mapped from disk.
        evaluations: gradients of every chain, warm-up included.
        inverse_mass: M⁻¹ of every chain.
        exact: whether the sampler is exact.
        about: the description of the run.
        examples: the data.

    Attributes:
        statistics: name → [chains, draws], under the names of ArviZ' schema.

    Example:
        >>> from neko_rules import Evaluator, LIF, MALA, Posterior, Trainer
        >>> model = Evaluator(LIF(4, 2, readout="mean", dtype="float64"))
        >>> x, y = np.random.default_rng(0).normal(size=(8, 5, 3)), np.arange(8) % 2
        >>> samples = Trainer(MALA(Posterior(model))).sample(x, y, draws=8, warmup=10, chains=2)
        >>> samples.chains, samples.draws, samples.predict(x).probabilities.shape
        (2, 8, (8, 2))
    """

    def __init__(
        self,
        posterior: Posterior,
        records: Sequence[ChainRecord],
        *,
        evaluations: Sequence[int],
        inverse_mass: Sequence[np.ndarray],
        exact: bool,
        about: Mapping[str, Any],
        examples: Examples,
    ) -> None:
        self.posterior, self.records = posterior, list(records)
        self.evaluations, self.inverse_mass = list(evaluations), list(inverse_mass)
        self.exact, self.about, self.examples = exact, dict(about), examples
        joined = np.stack([np.asarray(record.statistics) for record in self.records])
        self.statistics = {name: joined[:, :, place] for place, name in enumerate(STATISTICS)}

    @property
    def chains(self) -> int:
        """How many chains."""
        return len(self.records)

    @property
    def draws(self) -> int:
        """How many draws of every chain."""
        return len(self.records[0].draws)

    def __repr__(self) -> str:
        kind = "exact" if self.exact else "approximate"
        return f"Samples({self.chains} chains, {self.draws} draws, {self.posterior.dimension} weights; {kind})"

    # Weights.

    def vectors(self, most: int | None = None) -> Iterator[np.ndarray]:
        """The draws of all chains as vectors, read one by one.

        Args:
            most: how many at most, as many of each chain as may be, evenly spaced over it; all by default.

        Raises:
            ArgumentError: it is not a whole number of at least 1.
        """
        return (
            np.asarray(record.draws[place], np.float64)
            for record, places in zip(self.records, self._places(most), strict=True)
            for place in places
        )

    def _places(self, most: int | None) -> list[np.ndarray]:
        """Which draws of every chain are taken: the middles of as many equal parts of it, or all."""
        if most is None:
            return [np.arange(self.draws)] * self.chains
        each, left = divmod(arguments.integer("most", most, at_least=1), self.chains)
        counts = (min(self.draws, each + (chain < left)) for chain in range(self.chains))
        return [np.floor((np.arange(count) + 0.5) * self.draws / max(count, 1)).astype(int) for count in counts]

    def parameters(self, chain: int, draw: int) -> dict[str, np.ndarray]:
        """All parameters of one draw by name.

        Args:
            chain: its number, from 0, or from -1 backwards.
            draw: its number within the chain, likewise.

        Raises:
            ArgumentError: there is no such chain or draw.
        """
        arguments.integer("chain", chain, at_least=-self.chains, at_most=self.chains - 1)
        arguments.integer("draw", draw, at_least=-self.draws, at_most=self.draws - 1)
        return self.posterior.parameters(np.asarray(self.records[chain].draws[draw], np.float64))

    # Predictions.

    def outputs(self, x: Any, most: int | None = None, batch_size: int = 256) -> Iterator[np.ndarray]:
        """The outputs f of every drawn network on some inputs, one network after the other; the model keeps its own.

        Args:
            x, most, batch_size: as for ``predict``.
        """
        arguments.integer("batch_size", batch_size, at_least=1)
        vectors, twin = self.vectors(most), self.posterior.model.clone()

        def outputs() -> Iterator[np.ndarray]:
            for vector in vectors:
                twin.network.set_parameters(self.posterior.parameters(vector))
                yield twin.predict(x, batch_size)

        return outputs()

    def predict(self, x: Any, most: int | None = None, batch_size: int = 256) -> Predictive | PredictiveValues:
        """The posterior predictive distribution of every example.

        Args:
            x: inputs, [examples, time, feature].
            most: how many draws to use at most, evenly spaced over the chains; all by default.
            batch_size: examples that a network runs at once.

        Returns:
            Predictive for classification, PredictiveValues for regression: of counts (Poisson) the rates e^f, not the
            log rates f that ``outputs`` gives. What a loss makes of outputs stands in ``likelihood``.
        """
        return self._foretold(self.outputs(x, most, batch_size))

    def _foretold(self, outputs: Iterable[np.ndarray]) -> Predictive | PredictiveValues:
        """What some of the drawn networks foretell together, by their outputs and the likelihood."""
        model = self.posterior.model
        return foretold(outputs, model.network.task_type, model.loss, self.posterior.noise_scale)

    # Diagnostics.

    def summary(self, x: Any = None) -> Summary:
        """R-hat and effective sample sizes of the log-likelihood and of predictions, acceptance and divergences.

        Of single weights they would say little: a network that has two neurons exchanged is the same network.

        Args:
            x: the inputs whose predictions are followed; by default the first 16 of the training data.
        """
        x = self.examples.x[:PROBED] if x is None else x
        told = np.stack([self._told(outputs) for outputs in self.outputs(x)])
        told = told.reshape(self.chains, self.draws, -1)
        log_likelihood = self.statistics["log_likelihood"]
        rows = {
            "log_likelihood": _row(log_likelihood[:, :, None]),
            "predictions": _row(told),
        }
        return Summary(
            rows=rows,
            acceptance_rate=float(self.statistics["acceptance_rate"].mean()),
            block_acceptance_rate=float(self.statistics["block_acceptance_rate"].mean()),
            divergences=int(self.statistics["diverging"].sum()),
            step_sizes=tuple(self.statistics["step_size"][:, -1].tolist()),
            evaluations=sum(self.evaluations),
            chains=self.chains,
            draws=self.draws,
            exact=self.exact,
            rounding=self.posterior.rounding(self.records[-1].draws[-1], self.examples),
        )

    def _told(self, outputs: np.ndarray) -> np.ndarray:
        """What is followed: the probability of every class, or the mean of every value, by one network."""
        told = self._foretold([outputs])
        return told.probabilities if isinstance(told, Predictive) else told.mean

    def to_arviz(self, weights: bool = True, pointwise: bool = False) -> Any:
        """The draws in ArviZ' data structure, by its schema: InferenceData (0.23), or a DataTree (1.x).

        Args:
            weights: whether the group ``posterior`` holds all weights; else it holds the log-likelihood alone, summed
                over the data.
            pointwise: whether to add the log-likelihood of every training example, for leave-one-out: a forward pass
                over all data for every draw.
        """
        from neko_rules.probabilistic.arviz import exported

        return exported(self, weights, pointwise)


@dataclass(frozen=True)
class Summary:
    """Whether chains have mixed.

    Attributes:
        rows: ``"log_likelihood"`` and ``"predictions"`` → R-hat (the largest), bulk and tail ESS (the smallest).
        acceptance_rate: mean acceptance probability.
        block_acceptance_rate: that of moves of single neurons; NaN where there are none.
        divergences: how many transitions diverged, warm-up left out.
        step_sizes: of every chain.
        evaluations: gradients over all data, warm-up included, all chains together.
        chains, draws: how many.
        exact: whether the sampler is exact.
        rounding: about how far the energy of the last draw is off, in nats, in the network's type.
    """

    rows: dict[str, dict[str, float]]
    acceptance_rate: float
    block_acceptance_rate: float
    divergences: int
    step_sizes: tuple[float, ...]
    evaluations: int
    chains: int
    draws: int
    exact: bool
    rounding: float = 0.0

    @property
    def converged(self) -> bool:
        """Whether the chains agree in every row."""
        return all(agrees(row["r_hat"], row["ess_bulk"], self.chains) for row in self.rows.values())

    def __str__(self) -> str:
        lines = [f"{'':16}{'R-hat':>8}{'bulk ESS':>10}{'tail ESS':>10}{'per 1000 gradients':>20}"]
        for name, row in self.rows.items():
            rate = 1000 * row["ess_bulk"] / self.evaluations
            lines.append(f"{name:16}{row['r_hat']:8.3f}{row['ess_bulk']:10.0f}{row['ess_tail']:10.0f}{rate:20.2f}")
        steps = ", ".join(f"{step:.3g}" for step in self.step_sizes)
        lines.append(f"acceptance {self.acceptance_rate:.3f}, divergences {self.divergences}, step sizes {steps}")
        if np.isfinite(self.block_acceptance_rate):
            lines.append(f"acceptance of moves of single neurons {self.block_acceptance_rate:.3f}")
        if not self.exact:
            lines.append("approximate sampler: no accept step")
        if self.rounding > COARSE:
            lines.append(f"energies are rounded to about {self.rounding:.2g} nats: give the network dtype='float64'")
        lines.append(verdict(self.converged, self.chains))
        return "\n".join(lines)


def verdict(converged: bool, chains: int) -> str:
    """In words whether chains agree, and what to do if they do not.

    Example:
        >>> print(verdict(False, chains=4))
        the chains do not agree: R-hat has to be below 1.01 and the bulk ESS above 400; draw more, or sample otherwise
    """
    if converged:
        return "the chains agree"
    wanted = f"R-hat has to be below {MIXED} and the bulk ESS above {EACH * chains}"
    return f"the chains do not agree: {wanted}; draw more, or sample otherwise"


COARSE = 0.1
"""Nats by which an energy may be off: an acceptance probability changes by no more than the difference of two does."""

MIXED, EACH = 1.01, 100
"""R-hat below, and bulk ESS of every chain above which chains have mixed (Vehtari et al. 2021)."""


def agrees(r_hat: float, ess_bulk: float, chains: int) -> bool:
    """Whether R-hat and bulk ESS are good enough.

    Example:
        >>> agrees(1.005, 850.0, chains=4), agrees(1.03, 850.0, chains=4)
        (True, False)
    """
    return r_hat < MIXED and ess_bulk > EACH * chains


def _row(draws: np.ndarray) -> dict[str, float]:
    """The worst figures over the last axis; what does not vary has none."""
    varying = draws[:, :, np.ptp(draws, axis=(0, 1)) > 0]
    if not varying.size or draws.shape[1] < 4:
        return dict.fromkeys(("r_hat", "ess_bulk", "ess_tail"), float("nan"))
    return {
        "r_hat": float(np.max(r_hat(varying))),
        "ess_bulk": float(np.min(ess_bulk(varying))),
        "ess_tail": float(np.min(ess_tail(varying))),
    }
