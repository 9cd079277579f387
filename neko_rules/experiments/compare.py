"""Compare: rules named on the command line, set against each other on the model and data of a configuration."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from neko_rules.errors import ArgumentError, ConfigurationError, NekoError, nearest
from neko_rules.experiments.config import Configuration, load, resolved
from neko_rules.experiments.folder import RunFolder, free_path, require_free
from neko_rules.experiments.parts import parameters, within
from neko_rules.experiments.run import (
    Experiment,
    MetricsFile,
    Outcome,
    as_written,
    environment_now,
    load_data,
    write_results,
)
from neko_rules.experiments.yaml_file import dump, parse
from neko_rules.rules import RULES
from neko_rules.trainers import Comparison, GradientComparison, ProgressBar

FOLDER = "comparison"
"""Where in a run's folder the comparison lies."""

SHARED = ("optimizer", "regularizers", "weight_decay", "clipping", "rate_factors")
"""What every compared rule takes over from the configuration's rule."""


@dataclass(frozen=True)
class Spelled:
    """A rule as it is spelled on the command line: ``eprop:random``, ``eprop:mode=random,online=true@jax``.

    Args:
        label: the whole, by which the rule is called in tables.
        name: of the rule.
        arguments: what stands behind the colon; a word alone is the rule's mode.
        backend: what stands behind ``@``, or "".

    Example:
        >>> Spelled.read("eprop:random@torch")
        Spelled(label='eprop:random@torch', name='eprop', arguments={'mode': 'random'}, backend='torch')
        >>> Spelled.read("truncated_bptt:window=7").arguments
        {'window': 7}
    """

    label: str
    name: str
    arguments: dict[str, Any]
    backend: str = ""

    @classmethod
    def read(cls, text: str) -> Spelled:
        """A spelling taken apart.

        Raises:
            ConfigurationError: the rule is unknown, or a word stands where the rule has no mode.
        """
        rest, _, backend = text.partition("@")
        name, _, behind = rest.partition(":")
        with within(f"--rules {text}"):
            known = parameters(RULES, name)
            name = RULES.canonical(name)
        found: dict[str, Any] = {}
        for part in behind.split(",") if behind else ():
            key, equals, value = part.partition("=")
            if not equals and "mode" not in known:
                raise ConfigurationError(
                    f"{name} has no mode", received=text, works=f"write an argument: {name}:key=value"
                )
            found[key if equals else "mode"] = parse(value if equals else key, f"--rules {text}")
        return cls(text, name, found, backend)

    def configured(self, configuration: Configuration) -> Configuration:
        """The configuration with this rule, which takes over what it can from the one that stands there."""
        given = configuration.rule
        same = RULES.canonical(given["name"]) == self.name
        taken = {key: value for key, value in given.items() if key != "name"} if same else {}
        taken |= {key: given[key] for key in SHARED if key in given and key in parameters(RULES, self.name)}
        rule = {"name": self.name, **taken, **self.arguments}
        changes: dict[str, Any] = {"rule": rule, **({"backend": self.backend} if self.backend else {})}
        return resolved(configuration.model_copy(update=changes))


def compare(
    config: Path,
    rules: Sequence[str],
    settings: Sequence[str] = (),
    seed: int | None = None,
    out: Path | None = None,
    reference: str | None = None,
    keep_every: int = 100,
    progress: bool = True,
) -> tuple[Outcome, Comparison]:
    """Train by the first rule as a configuration file says, and compare all the others with it in every batch.

    Args:
        config: a YAML file; its rule gives optimiser, regularisers, weight decay and clipping to all.
        rules: spellings such as ``"eprop:random"``; the first trains.
        settings: changes such as ``"train.epochs=1"``.
        seed: in place of the file's.
        out: the folder to write, new or empty; by default ``runs/<name>-compare-<time>``.
        reference: the spelling of the rule that all are compared with; the first by default.
        keep_every: batches from one that is kept in full to the next.
        progress: whether to show a progress bar.

    Raises:
        NekoError: anything is wrong with the file, a rule, the data or the folder, or the network is dead.
    """
    if len(rules) < 2:
        raise ArgumentError(
            "a comparison needs at least two rules", received=list(rules), works="--rules bptt eprop:symmetric"
        )
    if len(set(rules)) < len(rules):
        raise ArgumentError("each rule can be compared once", received=list(rules))
    if reference is not None and reference not in rules:
        raise ArgumentError(
            "--reference must be one of the compared rules, as it is spelled there",
            received=reference,
            works=nearest(reference, rules),
        )
    base = load(config, settings, seed)
    spelled = [Spelled.read(text) for text in rules]
    configured = {each.label: each.configured(base) for each in spelled}
    _refuse_the_same(configured)
    experiments = {label: Experiment.build(each) for label, each in configured.items()}
    first = experiments[spelled[0].label]
    if out is not None:
        require_free(out)
    begin = time.perf_counter()
    configuration = first.configuration
    path = out if out is not None else free_path(f"{configuration.name}-compare", datetime.now())
    folder = RunFolder(path)
    # Made before anything is written, since it refuses what does not fit together.
    comparison = GradientComparison(
        first.rule,
        {label: each.rule for label, each in experiments.items() if each is not first},
        reference=reference,
        name=spelled[0].label,
        folder=path / FOLDER,
        keep_every=keep_every,
        callbacks=[MetricsFile(folder), *([ProgressBar()] if progress else [])],
    )
    data = load_data(first)
    RunFolder.create(path)
    folder.write_text("config.yaml", dump(as_written(configuration)))
    folder.write_json("environment.json", environment_now(configuration))
    outcome = Outcome(folder)
    train = configuration.train
    try:
        with np.errstate(all="ignore"):
            result = comparison.train(
                *data[0],
                epochs=train.epochs,
                batch_size=train.batch_size,
                validation_data=data[1],
                shuffle=train.shuffle,
                seed=configuration.seed,
                progress=False,
            )
    except NekoError as error:
        outcome.reason, outcome.seconds = str(error).rstrip("."), time.perf_counter() - begin
        folder.write_json("summary.json", outcome.summary())
        raise
    result.save(path / FOLDER)
    interrupted = result.history.interrupted
    outcome.status, outcome.reason = ("interrupted", "Ctrl-C") if interrupted else ("finished", "")
    outcome.history, outcome.seconds = result.history, time.perf_counter() - begin
    write_results(outcome, first.rule.model.network, configuration)
    return outcome, result


def _refuse_the_same(configured: dict[str, Configuration]) -> None:
    """Refuse two spellings of one rule: compared with itself it would be found to be the same."""
    met: list[tuple[str, Configuration]] = []
    for label, each in configured.items():
        for other, known in met:
            if (each.rule, each.backend) == (known.rule, known.backend):
                raise ArgumentError(
                    "each rule can be compared once", received=f"{other} and {label}, which are the same on one backend"
                )
        met.append((label, each))
