"""Sampling runs in reports: whether the chains agree, their traces, and how doubt about the test data is spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from neko_rules.probabilistic.calibration import calibration_curve, risk_coverage
from neko_rules.probabilistic.predictive import Predictive
from neko_rules.report import html
from neko_rules.report.readable import duration, figure
from neko_rules.report.tables import STATUS

if TYPE_CHECKING:
    from rich.text import Text

TRACES = {
    "lp": "Log density (nats)",
    "log_likelihood": "Log-likelihood (nats)",
    "acceptance_rate": "Acceptance probability",
}
"""Statistics whose course over the draws is shown, and how their axis is labelled."""

FOLLOWED = ("log_likelihood", "predictions")
FIGURES = ("r_hat", "ess_bulk", "ess_tail")

DOUBT = {
    "test_accuracy": "accuracy",
    "test_negative_log_likelihood": "negative log-likelihood (nats)",
    "test_expected_calibration_error": "expected calibration error",
    "test_area_under_risk_coverage": "area under the risk-coverage curve",
    "test_entropy": "mean predictive entropy (nats)",
    "test_mutual_information": "mean mutual information (nats)",
    "wrong_less_sure_than_right": "chance that a wrong prediction is less sure than a right one",
    "rank_test_p_value": "p-value of the rank test",
    "test_squared_error": "squared error",
    "test_variance": "predictive variance",
}
"""Figures of the test data, and what they are called."""


def status_line(status: str, draws: Sequence[int], of: int, seconds: float) -> Text:
    """How a sampling run ended.

    Args:
        status: ``"finished"``, ``"interrupted"`` or ``"unfinished"``.
        draws: kept draws of every chain so far.
        of: how many were asked for of every chain.
        seconds: how long it took.

    Example:
        >>> status_line("interrupted", [50, 20], 100, 12.5).plain
        'interrupted after 70 of 200 draws of 2 chains and 12 s'
    """
    from rich.text import Text

    text = Text(status, style=f"bold {STATUS.get(status, 'yellow')}")
    said = f" after {sum(draws)} of {of * len(draws)} draws of {len(draws)} chains and {duration(seconds)}"
    return text.append(said, style="not bold default")


def spread(told: Predictive, labels: np.ndarray) -> dict[str, Any]:
    """How the doubt of predictions is spread, in values that JSON can hold, for ``uncertainty_section``.

    Args:
        told: predictions, without a time axis.
        labels: [examples].

    Example:
        >>> from neko_rules.probabilistic.predictive import of_logits
        >>> found = spread(of_logits([np.array([[2.0, 0.0], [0.0, 1.0]])]), np.array([0, 0]))
        >>> found["coverage"], found["risk"]
        ([0.5, 1.0], [0.0, 0.5])
    """
    right = told.classes == labels
    curve = calibration_curve(told.probabilities, labels)
    filled = curve.counts > 0
    coverage, risk = risk_coverage(told.entropy, right)
    share = np.linspace(0, 1, 101)
    entropy = {
        name: np.quantile(told.entropy[chosen], share).tolist()
        for name, chosen in (("right", right), ("wrong", ~right))
        if chosen.any()
    }
    return {
        "confidence": curve.confidence[filled].tolist(),
        "accuracy": curve.accuracy[filled].tolist(),
        "counts": curve.counts[filled].tolist(),
        "coverage": coverage.tolist(),
        "risk": risk.tolist(),
        "entropy": entropy,
    }


def chains_section(
    page: html.Page, found: Mapping[str, Any], traces: Mapping[str, Sequence[np.ndarray]], converged: bool | None
) -> None:
    """Diagnostics of the chains and the course of their statistics.

    Args:
        page: the report.
        found: the figures of ``summary.json``; those that are not there are left out.
        traces: statistic → its values over the draws, one array for every chain.
        converged: the verdict; None where there are too few draws for one.
    """
    rows = []
    for name in FOLLOWED:
        figures = [found.get(f"{name}_{each}") for each in FIGURES]
        if any(value is not None for value in figures):
            rate = 1e3 * figures[1] / found["gradients"] if figures[1] is not None and found.get("gradients") else None
            rows.append([name.replace("_", "-"), *map(figure, figures), figure(rate)])
    parts = []
    if converged is not None:
        said = "The chains agree" if converged else "The chains do not agree well enough"
        said += ": R-hat is to be below 1.01, and bulk ESS above 100 per chain (Vehtari et al. 2021)."
        parts.append(f"<p>{html.escaped(said)}</p>")
    if rows:
        headings = ["", "R-hat, largest", "bulk ESS, smallest", "tail ESS, smallest", "bulk ESS per 1,000 gradients"]
        parts.append(html.table(headings, rows, numbers=1))
    facts = [
        [name.replace("_", " "), f"{found[name]:.4g}" if isinstance(found[name], float) else found[name]]
        for name in ("weights", "acceptance_rate", "block_acceptance_rate", "divergences", "gradients")
        if found.get(name) is not None
    ]
    steps = [chain[-1] for chain in traces["step_size"] if len(chain)]
    if steps:
        facts.append(["step size of each chain", ", ".join(f"{step:.3g}" for step in steps)])
    if found.get("exact") is not None:
        facts.append(["sampler", "exact" if found["exact"] else "approximate: no accept step"])
    charts = []
    for name, label in TRACES.items():
        series = [
            html.curve(f"chain {place}", range(1, len(chain) + 1), chain.tolist())
            for place, chain in enumerate(traces[name])
            if len(chain)
        ]
        charts.append(page.chart("chains", "Draw", label, series))
    parts += [html.table(["of the chains", ""], facts, numbers=1), html.legend("chains")]
    page.section("Chains", *parts, f'<div class="charts">{"".join(charts)}</div>\n')


def uncertainty_section(page: html.Page, found: Mapping[str, Any], doubt: Mapping[str, Any]) -> None:
    """What the draws say of the test data, and how sure they are.

    Args:
        page: the report.
        found: the figures of ``summary.json``.
        doubt: what ``spread`` made of the predictions; empty for regression.
    """
    rows = [[label, figure(found[name])] for name, label in DOUBT.items() if found.get(name) is not None]
    if not rows:
        return
    charts = []
    if doubt:
        entropy = [html.curve(name, values, range(len(values))) for name, values in doubt["entropy"].items()]
        confidence, accuracy = ([100 * each for each in doubt[name]] for name in ("confidence", "accuracy"))
        # Colours of their own: those of right and wrong predictions are taken.
        calibration = [
            {**html.curve("posterior", confidence, accuracy), "colour": "c2"},
            {**html.curve("frequency = confidence", [0, 100], [0, 100], dash=html.DASHES[1]), "colour": "soft"},
        ]
        coverage, error = ([100 * each for each in doubt[name]] for name in ("coverage", "risk"))
        risk = [{**html.curve("posterior", coverage, error), "colour": "c2"}]
        charts = [
            page.chart("entropy", "Predictive entropy (nats)", "Predictions with at most that entropy (%)", entropy),
            page.chart("calibration", "Confidence (%)", "Accuracy (%)", calibration),
            page.chart("risk", "Coverage (%)", "Error (%)", risk),
        ]
    page.section(
        "Uncertainty",
        html.table(["of the test data", ""], rows, numbers=1),
        html.legend("entropy") if charts else "",
        f'<div class="charts">{"".join(charts)}</div>\n' if charts else "",
    )
