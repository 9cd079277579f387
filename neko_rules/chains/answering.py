"""Answering: what a loss makes of the outputs of a few examples, which a chain asks for between forward and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from neko_rules.backend import get_backend
from neko_rules.kernels.asking import Question
from neko_rules.scoring import Scoring


def answering(
    scoring: Scoring,
    target: np.ndarray,
    mask: np.ndarray,
    divisor: float,
    history: tuple[int, int, int],
    scores: dict[int, np.ndarray] | None,
    total: np.ndarray,
    raised: list[BaseException],
) -> tuple[Question, dict[str, Any]]:
    """A function that a chain asks about each of its groups, and what the chain takes for it, by argument.

    It works on NumPy arrays by the operations of the losses, which take some 0.1 ms for a group.

    Args:
        scoring: how outputs are judged.
        target: [1 or steps, batch, n_out]; an empty one where scores are all that is wanted.
        mask: [1 or steps, batch].
        divisor: how many outputs of the batch count in the loss.
        history: time steps, examples at most and neurons of what a chain asks about.
        scores: takes those of every group by its first example, [1 or steps, examples, n_out]; None if nobody looks.
        total: the loss is added to it, [1].
        raised: takes what the loss raises, of all threads: none of them asks it again.
    """
    nx = get_backend("numpy")
    steps, most, neurons = history
    observed, answered = (np.empty(steps * most * neurons, mask.dtype) for _ in range(2))
    place = np.zeros(2, np.int64)

    def answer() -> None:
        begin, examples = place
        some, shape = slice(begin, begin + examples), (steps, examples, neurons)
        of_some = observed[: steps * examples * neurons].reshape(shape)
        with np.errstate(all="ignore"):
            scored = scoring.scored(nx, of_some, mask[:, some])
            if scores is not None:
                # A copy: they may be what was observed, in memory of the next group too.
                scores[int(begin)] = np.array(scored.scores)
            if target.size:
                loss, signal = scoring.judged(nx, of_some, target[:, some], scored, divisor)
                total[0] += loss
                answered[: of_some.size].reshape(shape)[...] = signal

    question = Question(answer, raised)
    given = {"question": question.address, "asked": question.asked, "place": place}
    return question, {**given, "observed": observed, "answered": answered}
