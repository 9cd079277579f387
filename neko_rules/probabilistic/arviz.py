"""ArviZ: draws in the schema of ArviZ, by one adapter for its versions 0.23 (InferenceData) and 1.x (DataTree).

The two differ in how groups are given: 0.23 takes each group as a keyword, 1.x takes one mapping of groups.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from neko_rules.errors import NekoError
from neko_rules.probabilistic.chain_files import STATISTICS

if TYPE_CHECKING:
    from neko_rules.probabilistic.samples import Samples

SAMPLE_STATS = [name for name in STATISTICS if name != "log_likelihood"]
"""The statistics of the group ``sample_stats``, by the schema's names; that of single neurons' moves has none there."""


def groups(samples: Samples, weights: bool, pointwise: bool) -> dict[str, dict[str, np.ndarray]]:
    """Group → variable → [chain, draw, …]."""
    statistics = {name: samples.statistics[name] for name in SAMPLE_STATS}
    if np.isnan(statistics["block_acceptance_rate"]).all():
        del statistics["block_acceptance_rate"]
    statistics |= {name: statistics[name].astype(np.int64) for name in ("n_steps", "tree_depth")}
    statistics["diverging"] = statistics["diverging"].astype(bool)
    posterior = {"total_log_likelihood": samples.statistics["log_likelihood"]}
    if weights:
        each = [[samples.parameters(chain, draw) for draw in range(samples.draws)] for chain in range(samples.chains)]
        sampled = [name for name, _, _ in samples.posterior.layout]
        posterior = {name: np.stack([[draw[name] for draw in chain] for chain in each]) for name in sampled}
    found = {"posterior": posterior, "sample_stats": statistics}
    if pointwise:
        data, target = samples.examples, samples.posterior
        rows = [target.log_likelihood(vector, data.x, data.y) for vector in samples.vectors()]
        found["log_likelihood"] = {"y": np.stack(rows).reshape(samples.chains, samples.draws, -1)}
    return found


def exported(samples: Samples, weights: bool = True, pointwise: bool = False) -> Any:
    """The draws as ArviZ' own structure.

    Raises:
        NekoError: ArviZ is not installed.
    """
    try:
        with warnings.catch_warnings():
            # 0.23 announces 1.x on its first import of the day.
            warnings.simplefilter("ignore", FutureWarning)
            library = importlib.import_module("arviz")
    except ModuleNotFoundError as error:
        if error.name != "arviz":
            raise
        raise NekoError(
            "to_arviz needs the library 'arviz', which is not installed",
            works="install it with pip install 'neko_rules[bayes]'",
        ) from error
    return converted(library, groups(samples, weights, pointwise), dict(samples.about))


def converted(library: Any, found: dict[str, dict[str, np.ndarray]], attributes: dict[str, Any]) -> Any:
    """Groups to the structure of a version of ArviZ."""
    told = {"inference_library": "neko_rules", "sampler": str(attributes.get("rule", ""))}
    if int(str(library.__version__).split(".")[0]) >= 1:
        return library.from_dict(found, attrs={"/": told})
    return library.from_dict(**found, attrs=told)
