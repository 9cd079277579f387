"""Comparison: what a comparison of rules has found, read from its folder as it is asked for."""

from __future__ import annotations

import shutil
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neko_rules.arguments import choice, known
from neko_rules.errors import ArgumentError
from neko_rules.trainers.comparison_folder import (
    QUANTITIES,
    kept_batches,
    read_about,
    read_figures,
    read_matrices,
    read_moments,
    read_synapses,
)
from neko_rules.trainers.deviation import STATISTICS, Moments
from neko_rules.trainers.history import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table


class Comparison:
    """The figures, sampled matrices and moments of a comparison.

    Args:
        path: the folder that ``GradientComparison`` wrote.
        history: of the primary's training.
        temporary: whether the folder is removed when this result is no longer held.

    Attributes:
        reference: name of the rule that all are compared with.
        primary: name of the rule that trained.
        rules: names of the compared rules, the reference left out.
        groups: what figures are made of: parameters, populations with several, and ``"all"``.
        batches: numbers of the batches, from 0.
        loss: the primary's loss in each.

    Example:
        >>> from neko_rules import ALIF, BPTT, EProp, Evaluator, GradientComparison
        >>> rng = np.random.default_rng(0)
        >>> x, y = 3 * rng.normal(size=(8, 10, 5)), rng.integers(2, size=8)
        >>> model = Evaluator(ALIF(12, 2))
        >>> result = GradientComparison(BPTT(model), {"itself": BPTT(model)}).train(x, y, batch_size=4)
        >>> cosine = result.statistic("itself", "all")
        >>> bool(np.allclose(cosine, 1)), result.moments("itself", "hidden.bias").squared_bias
        (True, 0.0)
    """

    def __init__(self, path: Path, history: History | None = None, temporary: bool = False) -> None:
        self.path = Path(path)
        self.history = History() if history is None else history
        if temporary:
            weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)
        about = read_about(self.path)
        self.primary, self.reference = str(about["primary"]), str(about["reference"])
        self.rules: list[str] = list(about["rules"])
        self.parameters: dict[str, tuple[int, ...]] = {
            name: tuple(shape) for name, shape in about["parameters"].items()
        }
        self.groups: list[str] = list(about["groups"])
        self.about = about
        found = read_figures(self.path)
        self.batches, self.loss, self._values = found["batch"], found["loss"], found["values"]
        self._synapses = read_synapses(self.path)
        self._moments = read_moments(self.path, self._synapses)

    @classmethod
    def load(cls, path: str | Path) -> Comparison:
        """The result in a folder that was kept.

        Raises:
            CheckpointError: no comparison has been written there, or it is damaged.
        """
        return cls(Path(path))

    @property
    def layers(self) -> list[str]:
        """The populations, each as one vector of all its parameters, first to last."""
        return list(dict.fromkeys(name.split(".")[0] for name in self.parameters))

    def statistic(self, rule: str, group: str, name: str = "cosine", quantity: str = "gradient") -> np.ndarray:
        """A figure of ``neko_rules.trainers.deviation`` in every batch, [batch].

        Args:
            rule: a compared rule.
            group: a parameter, a population, or ``"all"``.
            name: ``"cosine"``, ``"angle"`` (degrees), ``"norm_ratio"``, ``"relative_error"``, ``"sign_agreement"``,
                ``"mean"``, ``"std"``, ``"mean_absolute"``, ``"norm"`` or ``"reference_norm"``.
            quantity: ``"gradient"`` or ``"change"``.
        """
        place = QUANTITIES.index(choice("quantity", quantity, QUANTITIES))
        column = STATISTICS.index(choice("name", name, STATISTICS))
        return self._values[:, self.rules.index(self._rule(rule)), place, self.groups.index(self._group(group)), column]

    def moments(self, rule: str, parameter: str, quantity: str = "gradient") -> Moments:
        """Mean, its standard error and variance of every entry's deviation over the batches.

        The batches of a training follow each other, so they are not independent draws: take the standard error as a
        scale, not as a test.
        """
        choice("quantity", quantity, QUANTITIES)
        known("unknown parameter", [parameter], self.parameters)
        key = (quantity, self._rule(rule), parameter)
        if key not in self._moments:
            raise ArgumentError(f"{rule} and {self.reference} must both have a {quantity}", received=f"no {quantity}")
        return self._moments[key]

    def synapses(self, parameter: str) -> np.ndarray:
        """Which entries of a parameter are learned, bool of its shape: all but those that stay zero, of no synapse."""
        known("unknown parameter", [parameter], self.parameters)
        found = self._synapses.get(parameter)
        return np.ones(self.parameters[parameter], bool) if found is None else found

    @property
    def kept(self) -> list[int]:
        """The batches whose gradients and changes are there in full."""
        return kept_batches(self.path)

    def matrix(self, rule: str, parameter: str, batch: int, quantity: str = "gradient") -> np.ndarray:
        """The gradient or change of a rule (the reference too) in a batch that was kept."""
        return self._matrices([f"{quantity}/{rule}/{parameter}"], batch)[0]

    def deviation(self, rule: str, parameter: str, batch: int, quantity: str = "gradient") -> np.ndarray:
        """Rule minus reference, entry by entry, in a batch that was kept."""
        keys = [f"{quantity}/{name}/{parameter}" for name in (self._rule(rule), self.reference)]
        given, truth = self._matrices(keys, batch)
        return given.astype(np.float64) - truth

    def summary(self, quantity: str = "gradient") -> list[dict[str, Any]]:
        """A row for every rule and group: figures averaged over the batches, and for parameters bias and variance.

        ``bias`` is the mean entry of d̄ with its standard error over batches; ``squared_bias`` and ``variance`` are
        averages over the synapses and add up to the mean square deviation.
        """
        rows = []
        for rule in self.rules:
            for group in self.groups:
                series = {name: self.statistic(rule, group, name, quantity) for name in STATISTICS}
                row: dict[str, Any] = {"rule": rule, "parameter": group, "quantity": quantity}
                row |= {name: mean_of(values) for name, values in series.items()}
                row["spread"] = (
                    float(np.std(_known(series["cosine"]))) if _known(series["cosine"]).size else float("nan")
                )
                row |= {"bias": mean_of(series["mean"]), "bias_error": standard_error(series["mean"])}
                if (quantity, rule, group) in self._moments:
                    moments = self._moments[quantity, rule, group]
                    square = mean_of(series["reference_norm"] ** 2) / max(int(self.synapses(group).sum()), 1)
                    row |= {
                        "squared_bias": moments.squared_bias,
                        "variance": moments.spread,
                        "reference_square": square,
                    }
                rows.append(row)
        return rows

    def table(self, quantity: str = "gradient") -> Table:
        """Rule × parameter: cosine, angle, norm ratio, sign agreement, bias and spread, as means over the batches."""
        from neko_rules.report.comparison_table import comparison_table

        return comparison_table(self.summary(quantity), self.reference, len(self.batches), quantity)

    def plot(self, parameter: str | None = None, batch: int | None = None) -> Figure:
        """The two panels of Neko's figure 4, the angle over training, bias and variance, and the heat of deviations.

        Args:
            parameter: whose deviations are shown; by default the recurrent weights if there are some.
            batch: of the snapshot; by default the last that was kept.

        Raises:
            ArgumentError: no batch was kept in full.
        """
        from neko_rules.report.comparison_plot import comparison_figure

        return comparison_figure(self, self.usual_parameter() if parameter is None else parameter, batch)

    def save(self, folder: str | Path) -> None:
        """Write the figure as PNG and SVG and the summary as JSON into a folder."""
        import json

        from neko_rules.report.style import save

        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        rows = [row for quantity in QUANTITIES for row in self.summary(quantity)]
        finite = [{k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in r.items()} for r in rows]
        (target / "summary_of_comparison.json").write_text(json.dumps(finite, indent=1) + "\n", encoding="utf-8")
        if self.kept:
            save(self.plot(), target / "comparison.png")

    def usual_parameter(self) -> str:
        """The recurrent weights where there are some, else the largest parameter."""
        size = {name: int(self.synapses(name).sum()) for name in self.parameters}
        recurrent = [name for name in self.parameters if name.endswith("recurrent.weight") and size[name]]
        return recurrent[0] if recurrent else max(size, key=lambda name: size[name])

    def _matrices(self, keys: list[str], batch: int) -> list[np.ndarray]:
        if batch not in self.kept:
            known = ", ".join(map(str, self.kept[:8])) or "none"
            raise ArgumentError(
                "matrices are there for batches that were kept", received=batch, works=f"kept: {known}; see keep_every"
            )
        found = read_matrices(self.path, batch, keys)
        for key in keys:
            if key not in found:
                raise ArgumentError(
                    "a matrix is named by quantity, rule and parameter", received=key, works="see rules and parameters"
                )
        return [found[key] for key in keys]

    def _rule(self, rule: str) -> str:
        return choice("rule", rule, self.rules)

    def _group(self, group: str) -> str:
        return choice("group", group, self.groups)

    def __repr__(self) -> str:
        return f"Comparison({', '.join(self.rules)} with {self.reference}, {len(self.batches)} batches)"


def _known(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


def mean_of(values: np.ndarray) -> float:
    """The mean of the values that are not NaN; NaN if there are none.

    Example:
        >>> mean_of(np.array([1.0, np.nan, 3.0])), mean_of(np.array([np.nan]))
        (2.0, nan)
    """
    known = _known(values)
    return float(known.mean()) if known.size else float("nan")


def standard_error(values: np.ndarray) -> float:
    """The standard error of that mean.

    Example:
        >>> standard_error(np.array([1.0, 3.0]))
        1.0
    """
    known = _known(values)
    return float(known.std(ddof=1) / np.sqrt(known.size)) if known.size > 1 else float("nan")
