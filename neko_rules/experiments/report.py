"""Report: the folder of a run read back and made into one HTML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neko_rules.errors import NekoError
from neko_rules.experiments import sampling
from neko_rules.experiments.compare import FOLDER
from neko_rules.experiments.folder import RunFolder
from neko_rules.experiments.parts import shortened
from neko_rules.experiments.run import Experiment
from neko_rules.experiments.yaml_file import dump, read_mapping
from neko_rules.probabilistic import SamplingRule
from neko_rules.report import html
from neko_rules.report import sampling as sections
from neko_rules.report.tables import crossbar_lines, part_line, status_line

if TYPE_CHECKING:
    from rich.text import Text

REPORT, VERIFICATION = "report.html", "verification.json"


@dataclass(frozen=True)
class _Verdict:
    """A verdict as ``verification.json`` holds it."""

    backend: str
    dtype: str
    largest: Mapping[str, float]
    parting: str | None


@dataclass(frozen=True)
class _Verification:
    """A verification as ``verification.json`` holds it."""

    reference: str
    steps: int
    verdicts: list[_Verdict]


def write_report(path: Path, out: Path | None = None, activity: bool = True) -> Path:
    """Write the report of a run.

    Args:
        path: folder of a run or of a comparison.
        out: the file to write; by default ``report.html`` in that folder.
        activity: whether the trained network is run on a test example, for which its data are loaded.

    Returns:
        The file.

    Raises:
        NekoError: no run has been written there, or its files are damaged.
    """
    folder = RunFolder.existing(path)
    configuration, summary = read_mapping(folder.config), folder.read_json("summary.json")
    records = folder.read_metrics()
    sampled = sampling.is_sampling(configuration.get("rule"))
    status = sampling.status(folder) if sampled else _trained(configuration, summary, len(records))
    told = "; ".join([status.plain, *crossbar_lines(summary)])
    page = html.Page(str(configuration.get("name", path.name)), told)
    described = {key: part_line(shortened(value, key)) for key, value in configuration.items() if key != "name"}
    page.section(
        "What was run",
        html.table(["key", "value"], list(described.items())),
        html.folded("The whole configuration", dump(configuration)),
    )
    if records:
        loss = configuration.get("loss")
        html.learning_section(page, records, str(loss.get("name", "")) if isinstance(loss, dict) else "")
    if sampled:
        _add_sampling(page, folder, configuration, summary)
    if (path / FOLDER / "comparison.json").is_file():
        from neko_rules.trainers import Comparison

        html.comparison_section(page, Comparison.load(path / FOLDER))
    if activity and (folder.weights.exists() or sampled):
        _add_activity(page, folder)
    verified = folder.read_json(VERIFICATION)
    if verified:
        verdicts = [_Verdict(**each) for each in verified["verdicts"]]
        html.verification_section(page, _Verification(verified["reference"], verified["steps"], verdicts))
    environment = folder.read_json("environment.json")
    if environment:
        rows = [[key, _flat(value)] for key, value in environment.items() if key != "resumed"]
        page.section("Environment", html.table(["key", "value"], rows))
    target = path / REPORT if out is None else out
    target.write_text(page.text(), encoding="utf-8")
    return target


def _trained(configuration: Mapping[str, Any], summary: Mapping[str, Any], finished: int) -> Text:
    """How a training run ended."""
    train = configuration.get("train")
    epochs = train.get("epochs", finished) if isinstance(train, dict) else finished
    return status_line(
        str(summary.get("status", "unfinished")),
        str(summary.get("reason", "")),
        finished,
        epochs,
        float(summary.get("seconds") or 0.0),
    )


def _add_sampling(
    page: html.Page, folder: RunFolder, configuration: Mapping[str, Any], summary: Mapping[str, Any]
) -> None:
    """Chains and uncertainty; of a run that has not ended, what there is of its chains."""
    traces = sampling.traces(folder, configuration["sample"]["chains"])
    found = summary.get("sampling") or sampling.unfinished(traces)
    sections.chains_section(page, found, traces, sampling.converged(found))
    sections.uncertainty_section(page, found, folder.read_json(sampling.UNCERTAINTY))


def _add_activity(page: html.Page, folder: RunFolder) -> None:
    """Spikes of the trained network, or of the last one drawn, on the first test example; or why there are none."""
    try:
        experiment = Experiment.of_run(folder)
        model = experiment.rule.model
        x = experiment.dataset.load()[2][:1]
        model.check(x)
        if isinstance(experiment.rule, SamplingRule):
            words = "The last drawn network of the first chain on the first test example"
            model.network.set_parameters(sampling.last_drawn(experiment.rule, folder))
        else:
            words = "The trained network on the first test example"
            model.network.set_parameters(folder.read_weights())
        trajectory = model.trajectory(x)
    except NekoError as error:
        page.section("Activity", f'<p class="soft">Not shown: {html.escaped(error)}</p>')
        return
    spikes = {name: np.asarray(trajectory.z(name)[:, 0]) for name in model.network.spiking}
    if spikes:
        html.activity_section(page, spikes, model.network.dt, words)


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {each}" for key, each in value.items())
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
