"""Figures and tables of a run: every number of the records is in them, in the unit that the label says."""

from __future__ import annotations

import io
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from neko_rules.report.comparison_table import COLUMNS, cells, comparison_table, verification_table
from neko_rules.report.learning_curve import learning_curve, learning_curves, quantities, save_learning_curves
from neko_rules.report.readable import filled
from neko_rules.report.tables import best, curves, description_table, figures_table, part_line
from neko_rules.report.terminal import BRAILLE, curve_lines

RECORDS: list[dict[str, Any]] = [
    {
        "epoch": epoch,
        "steps": 10,
        "loss": 2.0 / epoch,
        "accuracy": 0.2 * epoch,
        "firing_rate": 20.0 - epoch,
        "validation_loss": 2.5 / epoch,
        "validation_accuracy": 0.15 * epoch,
        "validation_firing_rate": 21.0 - epoch,
        "seconds": 1.5,
    }
    for epoch in (1, 2, 3)
]


def printed(*parts: Any, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width)
    for part in parts:
        console.print(part)
    return console.file.getvalue()  # type: ignore[attr-defined]


class TestLearningCurve:
    def test_lines_hold_the_records_in_the_unit_of_the_label(self) -> None:
        ax = learning_curve(RECORDS, quantity="accuracy")
        training, validation = ax.get_lines()
        assert ax.get_ylabel() == "Accuracy (%)"
        np.testing.assert_allclose(training.get_xdata(), [1, 2, 3])
        np.testing.assert_allclose(np.asarray(training.get_ydata(), float), [20, 40, 60])
        np.testing.assert_allclose(np.asarray(validation.get_ydata(), float), [15, 30, 45])
        assert (training.get_label(), validation.get_label()) == ("training", "validation")

    def test_curves_differ_without_colour(self) -> None:
        training, validation = learning_curve(RECORDS).get_lines()
        assert training.get_linestyle() != validation.get_linestyle()
        assert training.get_marker() != validation.get_marker()

    def test_draws_on_the_axes_that_are_given(self) -> None:
        figure = learning_curves(RECORDS[:1])
        ax = figure.axes[0]
        assert learning_curve(RECORDS, ax=ax) is ax

    def test_one_panel_for_each_quantity_with_unit(self) -> None:
        figure = learning_curves(RECORDS, loss="categorical_crossentropy")
        assert [ax.get_ylabel() for ax in figure.axes] == ["Cross-entropy (nats)", "Accuracy (%)", "Firing rate (Hz)"]
        assert {ax.get_xlabel() for ax in figure.axes} == {"Epoch"}
        assert learning_curves(RECORDS, loss="mean_squared_error").axes[0].get_ylabel() == "Mean squared error"

    def test_epochs_are_whole_numbers(self) -> None:
        for records in (RECORDS, RECORDS[:1]):
            figure = learning_curves(records)
            figure.canvas.draw()
            ticks = [tick for tick in figure.axes[0].get_xticks() if 1 <= tick <= len(records)]
            assert ticks
            assert all(tick == round(tick) for tick in ticks)

    def test_a_gap_stays_a_gap(self) -> None:
        line = learning_curve([{"epoch": 1, "loss": 1.0}, {"epoch": 2, "loss": None}]).get_lines()[0]
        assert math.isnan(np.asarray(line.get_ydata(), float)[1])

    def test_files_are_written_and_equal_for_equal_records(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            save_learning_curves(RECORDS, tmp_path / f"{name}.png")
        assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
        save_learning_curves(RECORDS[:2], tmp_path / "c.png")
        assert (tmp_path / "a.svg").read_bytes() != (tmp_path / "c.svg").read_bytes()
        assert b"Firing rate (Hz)" in (tmp_path / "a.svg").read_bytes()

    def test_pyplot_is_not_touched(self) -> None:
        code = (
            "import sys; from neko_rules.report.learning_curve import learning_curves; "
            "learning_curves([{'epoch': 1, 'loss': 1.0}]); print('matplotlib.pyplot' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "False"


class TestTables:
    def test_figures_have_last_and_best_with_units(self) -> None:
        text = printed(figures_table(RECORDS))
        for expected in ("60.00 %", "45.00 %", "45.00 % (epoch 3)", "17.00 Hz", "0.6667", "0.8333"):
            assert expected in text

    def test_best_is_lowest_for_losses_and_highest_for_accuracies(self) -> None:
        records = [
            {"epoch": e, "validation_loss": v, "validation_accuracy": v} for e, v in ((1, 0.3), (2, 0.1), (3, 0.2))
        ]
        assert best(records, "loss") == "0.1 (epoch 2)"
        assert best(records, "accuracy") == "30.00 % (epoch 1)"

    def test_without_validation_there_is_no_such_column(self) -> None:
        assert "validation" not in printed(figures_table([{"epoch": 1, "loss": 0.5}]))

    def test_description_shows_every_part_as_a_call(self) -> None:
        rule = {"name": "eprop", "mode": "random"}
        text = printed(description_table({"rule": rule, "backend": "numpy", "seed": 3}, parameters=1234))
        assert "eprop(mode=random)" in text
        assert "seed" in text

    def test_a_part_is_shown_as_a_call(self) -> None:
        assert part_line({"name": "stack", "layers": [{"cell": {"name": "lif"}, "size": 3}]}) == (
            "stack(layers=[{cell=lif, size=3}])"
        )

    def test_what_is_not_set_is_not_listed_and_long_lists_are_short(self) -> None:
        text = printed(description_table({"model": {"name": "ALIF", "beta": [0.0] * 100}, "posterior": None}))
        assert "posterior" not in text
        assert "100 values" in text
        assert len(text.splitlines()) == 1
        assert part_line({"name": "stack", "sizes": [3, 4]}) == "stack(sizes=[3, 4])"

    def test_quantities_are_in_the_order_of_the_records(self) -> None:
        assert quantities(RECORDS) == ["loss", "accuracy", "firing_rate"]


class TestWidth:
    """What is wider than the terminal comes in parts; no figure and no heading is cut."""

    ROWS: list[dict[str, Any]] = [
        {
            "rule": rule,
            "parameter": parameter,
            **{name: 0.1 + place / 64 for place, name in enumerate(COLUMNS)},
            "angle": 101.25,
            "squared_bias": 0.5,
            "variance": 0.5,
        }
        for rule in ("eprop:random", "truncated_bptt:window=7", "eprop:mode=random,online=true,feedback_decay=0.125")
        for parameter in ("hidden0.input.weight", "hidden0.recurrent.weight", "all")
    ]

    @pytest.mark.parametrize("width", [46, 80, 120, 200])
    def test_every_figure_of_a_comparison_is_there(self, width: int) -> None:
        text = printed(comparison_table(self.ROWS, "bptt", 8, "gradient"), width=width)
        assert "…" not in text
        assert max(map(len, text.splitlines())) <= width
        for figure in cells(self.ROWS[0]):
            assert figure
            assert text.count(figure) >= len(self.ROWS)
        for heading, _ in COLUMNS.values():
            assert all(word in text for word in heading.split())
        for row in self.ROWS:
            assert row["rule"] in "".join(text.split())

    def test_rows_are_under_their_rule(self) -> None:
        lines = [
            line.strip() for line in printed(comparison_table(self.ROWS, "bptt", 8, "gradient"), width=80).split("\n")
        ]
        assert lines.index("eprop:random") + 4 == lines.index("truncated_bptt:window=7")
        assert lines[lines.index("eprop:random") + 1].startswith("hidden0.input.weight")

    def test_a_verification_keeps_its_figures(self) -> None:
        class Found:
            reference, steps = "numpy", 3
            verdicts = (
                type(
                    "Verdict",
                    (),
                    {
                        "backend": "tensorflow",
                        "dtype": "float64",
                        "largest": {"loss": 1e-10, "gradient": 2e-10, "weight": 3e-10},
                        "parting": "spike flip in step 2: " + "the forward passes agree up to it, " * 4,
                        "agrees": True,
                    },
                ),
            )

        text = printed(verification_table(Found()), width=80)
        assert all(each in text for each in ("1.0e-10", "2.0e-10", "3.0e-10", "tensorflow", "float64"))

    def test_a_docstring_is_broken_between_words_and_its_example_kept(self) -> None:
        paragraph = " ".join(["a sentence goes on"] * 12)
        head, example = paragraph[:112], '    >>> print("this line of an example is longer than that", 1 + 1)'
        text = f"{head}\n{paragraph[113:]}\n\nExample:\n{example}\n    2"
        shown = filled(text, 60)
        assert shown.split() == text.split()
        assert example in shown.splitlines()
        assert max(len(line) for line in shown.splitlines() if line != example) <= 60
        assert min(len(line) for line in shown.split("\n\n")[0].splitlines()[:-1]) > 40
        assert filled(text, 120) == text


class TestTerminal:
    def test_height_of_the_dots_follows_the_values(self) -> None:
        lines = ["".join(text for text, _ in line) for line in curve_lines({"loss": [3.0, 2.0, 1.0]}, 1, 21, 7)]
        drawn = [line[17:] for line in lines[:7]]
        highest = [min(row for row in range(7) if drawn[row][column] != " ") for column in range(21)]
        assert highest == sorted(highest)
        assert (highest[0], highest[-1]) == (0, 6)
        assert lines[0].split()[0] == "3"
        assert lines[6].split()[0] == "1"

    def test_every_curve_has_dots_of_its_own(self) -> None:
        owners = {name for line in curve_lines({"a": [0.0, 1.0], "b": [1.0, 0.0]}, 1) for _, name in line}
        assert owners == {"", "a", "b"}

    @pytest.mark.parametrize("values", [[1.0], [1.0, 1.0], [math.nan, 1.0], [1.0, math.nan, 3.0]])
    def test_short_constant_and_broken_curves_are_drawn(self, values: list[float]) -> None:
        text = "".join(text for line in curve_lines({"loss": values}, 1) for text, _ in line)
        assert any(ord(character) > BRAILLE for character in text if BRAILLE <= ord(character) < BRAILLE + 256)

    def test_nothing_finite_gives_nothing(self) -> None:
        assert curve_lines({"loss": [math.nan]}, 1) == []

    def test_terminal_curves_name_quantity_and_unit(self) -> None:
        text = printed(*curves(RECORDS, width=80))
        for expected in ("Accuracy (%)", "Firing rate (Hz)", "training", "validation", "60", "epoch"):
            assert expected in text
