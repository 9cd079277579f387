"""Costing: what the rules of a configuration ask of a machine, counted on its data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from neko_rules.arguments import integer
from neko_rules.costs import Costs, costs
from neko_rules.experiments.compare import Spelled
from neko_rules.experiments.config import load
from neko_rules.experiments.run import Experiment, load_data
from neko_rules.probabilistic.sampling_rule import SamplingRule


def costing(
    config: Path,
    rules: Sequence[str] = (),
    settings: Sequence[str] = (),
    seed: int | None = None,
    examples: int = 8,
) -> dict[str, Costs]:
    """Count the operations of a step of every rule, on the first examples and the first weights of a configuration.

    Of a rule that draws weights it is the rule whose gradient proposes them that is counted.

    Args:
        config: a YAML file; its rule gives optimiser, regularisers, weight decay and clipping to all.
        rules: spellings such as ``"eprop:online=true"``; the file's own rule if there is none.
        settings: changes such as ``"model.hidden=64"``.
        seed: in place of the file's.
        examples: of the batch.

    Raises:
        NekoError: anything is wrong with the file, a rule or the data.
    """
    base = load(config, settings, seed)
    examples = integer("--examples", examples, at_least=1)
    spelled = {text: Spelled.read(text).configured(base) for text in rules} or {base.rule["name"]: base}
    experiments = {label: Experiment.build(each) for label, each in spelled.items()}
    (x, y), _ = load_data(next(iter(experiments.values())))
    found = {}
    for label, experiment in experiments.items():
        rule = experiment.rule
        found[label] = costs(rule.gradient if isinstance(rule, SamplingRule) else rule, x[:examples], y[:examples])
    return found
