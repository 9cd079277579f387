"""Sampling runs: a configuration whose rule draws weights instead of training them.

    posterior: {prior: normal, prior_scale: 0.1}     the arguments of Posterior
    rule: {name: mala, gradient: {name: eprop, mode: random}}
    sample: {draws: 500, warmup: 200, chains: 4}     the arguments of Trainer.sample

Beside what every run folder holds it writes ``samples/`` (the draws as they come, from which the run goes on),
``uncertainty.png`` and ``uncertainty.json`` (the curves in it); ``summary.json`` holds the diagnostics of the chains
and the predictions of the test data.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neko_rules import arguments
from neko_rules.errors import CheckpointError, ConfigurationError, warn
from neko_rules.evaluator import Evaluator
from neko_rules.experiments.folder import RunFolder
from neko_rules.experiments.parts import supplied, with_defaults, within
from neko_rules.experiments.yaml_file import read_mapping
from neko_rules.probabilistic import SAMPLING_RULES, Posterior, Predictive, PredictiveValues, Samples, SamplingRule
from neko_rules.probabilistic.calibration import (
    area_under_risk_coverage,
    expected_calibration_error,
    negative_log_likelihood,
    rank_test,
)
from neko_rules.probabilistic.chain_files import STATISTICS, ChainRecord, read_state
from neko_rules.probabilistic.samples import agrees, verdict
from neko_rules.registry import construct
from neko_rules.rules import RULES
from neko_rules.samplers import ess_bulk, ess_tail, r_hat
from neko_rules.trainers import Trainer

if TYPE_CHECKING:
    from rich.text import Text

    from neko_rules.experiments.config import Configuration

SECTIONS = ("posterior", "sample")

SAMPLES, FIGURE, UNCERTAINTY = "samples", "uncertainty.png", "uncertainty.json"

FOLLOWED = ("log_likelihood", "predictions")
"""Quantities that have R-hat and ESS."""

LEAST = 4
"""Draws below which a chain, split in two, tells nothing."""


@dataclass(frozen=True)
class Sampling:
    """How many draws: the arguments of ``Trainer.sample`` that a configuration may give."""

    draws: int = 1000
    warmup: int = 1000
    chains: int = 4
    thin: int = 1
    processes: int = 1

    def __post_init__(self) -> None:
        for name in arguments_of("sample"):
            arguments.integer(name, getattr(self, name), at_least=0 if name == "warmup" else 1)


def arguments_of(section: str) -> list[str]:
    """The keys of a section."""
    maker: Any = Posterior if section == "posterior" else Sampling
    return [name for name in inspect.signature(maker).parameters if name != "model"]


def is_sampling(rule: Any) -> bool:
    """Whether a rule, by name or mapping, is one that samples."""
    name = rule.get("name") if isinstance(rule, Mapping) else rule
    return isinstance(name, str) and name in SAMPLING_RULES


def sections(configuration: Configuration, trains: bool) -> dict[str, Any]:
    """The sections ``posterior`` and ``sample`` with their defaults; a rule that trains has none.

    A rule that samples is warned of a section ``train``, which a file that was written for another rule may have.

    Args:
        configuration: of the run.
        trains: whether its section ``train`` says anything.

    Raises:
        ConfigurationError: a rule that trains is given one.
    """
    given = {name: getattr(configuration, name) for name in SECTIONS}
    if not is_sampling(configuration.rule):
        for name, value in given.items():
            if value is not None:
                raise ConfigurationError(
                    f"the section {name!r} belongs to rules that sample",
                    received=f"the rule {configuration.rule!r}",
                    works="use for example rule: mala, or leave it out",
                )
        return given
    if trains:
        warn(
            "the section 'train' belongs to rules that train",
            received=f"the rule {configuration.rule!r}",
            works="it has no effect; say how many draws in the section 'sample'",
        )
    with within("posterior"):
        posterior = with_defaults(Posterior, given["posterior"] or {}, ("model",))
    return {"posterior": posterior, "sample": with_defaults(Sampling, given["sample"] or {})}


def build(configuration: Configuration, model: Evaluator) -> SamplingRule:
    """The sampling rule of a configuration, on a model.

    Raises:
        ConfigurationError: a part refuses its arguments, or two do not fit together.
    """
    with within("posterior"):
        posterior = construct(Posterior, "posterior", configuration.posterior or {}, model)
    with within("sample"):
        construct(Sampling, "sample", configuration.sample or {})
    spec = dict(configuration.rule)
    with within("rule"):
        if isinstance(spec.get("gradient"), Mapping):
            gradient = spec["gradient"]
            given = supplied("gradient", gradient, {"seed": configuration.seed})
            spec["gradient"] = RULES.create(gradient["name"], given, model)
        return SAMPLING_RULES.create(spec.pop("name"), spec, posterior)


@dataclass
class Drawn:
    """How a sampling run ended.

    Attributes:
        folder: where everything is written.
        status: ``"finished"`` or ``"interrupted"``.
        seconds: how long it took.
        summary: the contents of ``summary.json``.
    """

    folder: RunFolder
    status: str
    seconds: float
    summary: dict[str, Any]


def run(
    rule: SamplingRule,
    configuration: Configuration,
    data: Any,
    folder: RunFolder,
    begin: float,
    resume: bool,
    progress: bool,
) -> Drawn:
    """Draw, and write down what the draws say of the test data."""
    (x_train, y_train), (x_test, y_test) = data
    place = folder.path / SAMPLES
    try:
        # Whatever is not finite is a rejection that is counted; NumPy's warnings about it would only come in between.
        with np.errstate(all="ignore"):
            samples = Trainer(rule).sample(
                x_train,
                y_train,
                **(configuration.sample or {}),
                seed=configuration.seed,
                folder=place,
                resume=resume and (place / "sampling.json").exists(),
                progress=None if progress else False,
            )
            found = report(samples, x_test, y_test, folder.path)
    except KeyboardInterrupt:
        seconds = time.perf_counter() - begin
        told: dict[str, Any] = {"status": "interrupted", "reason": "Ctrl-C", "seconds": round(seconds, 3)}
        folder.write_json("summary.json", told)
        return Drawn(folder, "interrupted", seconds, told)
    seconds = time.perf_counter() - begin
    told = {"status": "finished", "reason": "", "sampling": found, "seconds": round(seconds, 3)}
    folder.write_json("summary.json", told)
    return Drawn(folder, "finished", seconds, told)


def report(samples: Samples, x: Any, y: Any, folder: Path | None = None) -> dict[str, Any]:
    """Diagnostics of the chains, and what they predict of test data; with the figure, if there is a folder for it."""
    summary = samples.summary()
    chains = {
        "chains": summary.chains,
        "draws": summary.draws,
        "weights": samples.posterior.dimension,
        "exact": summary.exact,
        "acceptance_rate": summary.acceptance_rate,
        **({"block_acceptance_rate": rate} if np.isfinite(rate := summary.block_acceptance_rate) else {}),
        "divergences": summary.divergences,
        "gradients": summary.evaluations,
        **{f"{name}_{figure}": value for name, row in summary.rows.items() for figure, value in row.items()},
    }
    told, labels = samples.predict(x), np.asarray(y)
    if isinstance(told, PredictiveValues):
        error = float(np.mean((told.mean - labels.reshape(told.mean.shape)) ** 2))
        return {**chains, "test_squared_error": error, "test_variance": float(np.mean(told.variance))}
    if labels.ndim > 1 and labels.shape == told.probabilities.shape:
        labels = labels.argmax(axis=-1)
    return {**chains, **_classified(told, labels, folder)}


def _classified(told: Predictive, labels: np.ndarray, folder: Path | None) -> dict[str, Any]:
    """Accuracy, calibration and doubt over the outputs that have a label."""
    from neko_rules.report.sampling import spread
    from neko_rules.report.uncertainty import save_uncertainty_figure

    kept = labels >= 0
    if labels.shape != told.entropy.shape:
        return {}  # labels for every step and one output, or the other way round: the model's metrics say more
    told = Predictive(told.probabilities[kept], told.entropy[kept], told.mutual_information[kept], told.networks)
    labels = labels[kept].astype(np.int64)
    right = told.classes == labels
    found = {
        "test_accuracy": float(right.mean()),
        "test_negative_log_likelihood": negative_log_likelihood(told.probabilities, labels),
        "test_expected_calibration_error": expected_calibration_error(told.probabilities, labels),
        "test_area_under_risk_coverage": area_under_risk_coverage(told.entropy, right),
        "test_entropy": float(told.entropy.mean()),
        "test_mutual_information": float(told.mutual_information.mean()),
    }
    if right.any() and not right.all():
        chance, p_value = rank_test(told.entropy, right)
        found |= {"wrong_less_sure_than_right": chance, "rank_test_p_value": p_value}
    if folder is not None:
        save_uncertainty_figure({"posterior": told}, labels, folder / FIGURE)
        RunFolder(folder).write_json(UNCERTAINTY, spread(told, labels))
    return found


def traces(folder: RunFolder, chains: int) -> dict[str, list[np.ndarray]]:
    """Every statistic over the draws made so far, an array for each chain; a chain that has not begun has none.

    Raises:
        CheckpointError: a file of a chain is damaged.
    """
    found: dict[str, list[np.ndarray]] = {name: [] for name in STATISTICS}
    for chain in range(chains):
        place = folder.path / SAMPLES / f"chain-{chain}"
        stored = read_state(place)
        rows = np.empty((0, len(STATISTICS)))
        if stored is not None:
            rows = np.array(ChainRecord.read(place).statistics[: int(stored[1]["draws"])])
        for column, name in enumerate(STATISTICS):
            found[name].append(rows[:, column])
    return found


def status(folder: RunFolder) -> Text:
    """How far a sampling run has come, and how it ended."""
    from neko_rules.report.sampling import status_line

    asked, summary = read_mapping(folder.config)["sample"], folder.read_json("summary.json")
    drawn = [len(chain) for chain in traces(folder, asked["chains"])["lp"]]
    seconds = float(summary.get("seconds") or 0.0)
    return status_line(str(summary.get("status", "unfinished")), drawn, asked["draws"], seconds)


def trace_lines(folder: RunFolder, width: int) -> list[str]:
    """The log density over the draws of every chain, drawn in characters; nothing before there are two draws."""
    from neko_rules.report.terminal import curve_lines

    chains = traces(folder, read_mapping(folder.config)["sample"]["chains"])["lp"]
    named = {f"chain {place}": chain.tolist() for place, chain in enumerate(chains) if len(chain) > 1}
    if not named:
        return []
    drawn = curve_lines(named, 1, width=max(20, min(60, width - 20)), height=8)
    lines = ["".join(text for text, _ in line) for line in drawn]
    return [f"log density of {len(named)} chains", *lines, " " * 17 + "draw", ""]


def unfinished(found: Mapping[str, list[np.ndarray]]) -> dict[str, Any]:
    """What can be said of chains that have not come to their end, from as many draws as all of them have."""
    shortest = min(map(len, found["lp"]))
    if shortest < LEAST:
        return {}
    likelihood = np.stack([chain[:shortest] for chain in found["log_likelihood"]])
    figures = {"r_hat": r_hat, "ess_bulk": ess_bulk, "ess_tail": ess_tail}
    return {
        **{f"log_likelihood_{name}": float(figure(likelihood)) for name, figure in figures.items()},
        "acceptance_rate": float(np.mean([chain[:shortest] for chain in found["acceptance_rate"]])),
        "divergences": int(sum(chain.sum() for chain in found["diverging"])),
    }


def converged(found: Mapping[str, Any]) -> bool | None:
    """Whether R-hat and ESS of what is known are good enough; None if there are none, as of a single draw.

    What is not a number, as R-hat of chains that never moved, is written as null and is not good enough.
    """
    chains, draws = found.get("chains"), found.get("draws")
    rows: list[list[Any]] = [[found.get(f"{name}_{figure}") for figure in ("r_hat", "ess_bulk")] for name in FOLLOWED]
    if chains is None or draws is None or draws < LEAST:
        return None
    return all(None not in (r_hat, ess) and agrees(r_hat, ess, chains) for r_hat, ess in rows)


def last_drawn(rule: SamplingRule, folder: RunFolder) -> dict[str, np.ndarray]:
    """The parameters of the last draw of the first chain.

    Raises:
        CheckpointError: there is none yet.
    """
    place = folder.path / SAMPLES / "chain-0"
    stored = read_state(place)
    drawn = 0 if stored is None else int(stored[1]["draws"])
    if not drawn:
        raise CheckpointError(f"{place} must hold a draw", received="a chain that warms up")
    return rule.posterior.parameters(np.asarray(ChainRecord.read(place).draws[drawn - 1], np.float64))


def check_resumable(summary: Mapping[str, Any], path: Path) -> None:
    """Refuse to go on with a run that has ended."""
    if summary.get("status") == "finished":
        raise ConfigurationError(
            f"the run in {path} must have draws left", received="a finished run", works="begin a new run"
        )


def lines(summary: Mapping[str, Any]) -> list[str]:
    """What a sampling run found, one figure a line.

    Example:
        >>> [line.split("  ")[0] for line in lines({"sampling": {"draws": 50, "test_accuracy": 0.8125}})]
        ['draws', 'test accuracy']
    """
    found = summary.get("sampling")
    if not isinstance(found, Mapping):
        return []
    shown = []
    for name, value in found.items():
        if isinstance(value, bool):
            text = "yes" if value else "no"
        elif isinstance(value, float):
            text = f"{value:.4g}"
        else:
            text = "unknown" if value is None else str(value)
        shown.append(f"{name.replace('_', ' '):33}{text}")
    told = converged(found)
    return shown if told is None else [*shown, verdict(told, found["chains"])]
