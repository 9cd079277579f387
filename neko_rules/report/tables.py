"""Tables of a run: what was run, how it ended, and its last figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neko_rules.report.learning_curve import VALIDATION, axis_label, quantities, values
from neko_rules.report.readable import duration

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

COLOURS = {"training": "blue", "validation": "red"}
CROSSBARS = ("crossbar", "fast_crossbar")
"""What the arrays of devices are called in the summary of a run."""

STATUS = {"finished": "green", "interrupted": "yellow", "failed": "red"}
SHORT = 8
"""Numbers up to which a list is written out."""

LOWER_IS_BETTER = "loss"
HIGHER_IS_BETTER = ("accuracy", "top_")


def figures_table(records: Sequence[Mapping[str, Any]]) -> Table:
    """The last and the best value of every quantity, training beside validation."""
    from rich.table import Table

    validates = any(name.startswith(VALIDATION) for record in records for name in record)
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("")
    table.add_column("training", justify="right")
    if validates:
        table.add_column("validation", justify="right")
        table.add_column("best validation", justify="right")
    for name in quantities(records):
        row = [words(name), shown(name, values(records, name)[-1])]
        if validates:
            row += [shown(name, values(records, VALIDATION + name)[-1]), best(records, name)]
        table.add_row(*row)
    return table


def best(records: Sequence[Mapping[str, Any]], name: str) -> str:
    """The best validation value of a loss or an accuracy, with its epoch; nothing for a metric without a better side.

    Example:
        >>> best([{"epoch": 1, "validation_accuracy": 0.5}, {"epoch": 2, "validation_accuracy": 0.25}], "accuracy")
        '50.00 % (epoch 1)'
        >>> best([{"epoch": 1, "validation_firing_rate": 9.0}], "firing_rate")
        ''
    """
    known = [record for record in records if record.get(VALIDATION + name) is not None]
    if not known or not (name == LOWER_IS_BETTER or name.startswith(HIGHER_IS_BETTER)):
        return ""
    sign = -1 if name == LOWER_IS_BETTER else 1
    record = max(known, key=lambda each: sign * each[VALIDATION + name])
    return f"{shown(name, record[VALIDATION + name])} (epoch {record['epoch']})"


def shown(name: str, value: float) -> str:
    """A figure with its unit.

    Example:
        >>> shown("accuracy", 0.9123), shown("firing_rate", 12.345), shown("loss", 0.00012345)
        ('91.23 %', '12.35 Hz', '0.0001234')
    """
    label, factor = axis_label(name)
    if "(" not in label:
        return f"{value:.4g}"
    return f"{factor * value:.2f} {label.rpartition('(')[2].rstrip(')')}"


def words(name: str) -> str:
    """A name as one reads it.

    Example:
        >>> words("firing_rate")
        'firing rate'
    """
    return name.replace("_", " ")


def description_table(configuration: Mapping[str, Any], parameters: int | None = None) -> Table:
    """What was run, one line for each key of its configuration."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key in ("data", "model", "loss", "metrics", "posterior", "rule", "sample", "train", "backend", "dtype", "seed"):
        if configuration.get(key) is not None:
            text = part_line(configuration[key])
            if key == "model" and parameters is not None:
                text += f"  [{parameters:,} parameters]"
            table.add_row(key, Text(text))
    return table


def part_line(value: Any) -> str:
    """A part in one line, as a call; arguments that are null are left out, and a part that is null is no text.

    Example:
        >>> part_line({"name": "adam", "learning_rate": 0.002, "clipping": None})
        'adam(learning_rate=0.002)'
        >>> part_line([{"name": "accuracy"}, {"name": "firing_rate"}])
        'accuracy, firing_rate'
        >>> part_line({"name": "ALIF", "beta": [0.0] * 50 + [1.7] * 50})
        'ALIF(beta=[0.0, 0.0, 0.0, …, 1.7: 100 values])'
    """
    if value is None:
        return ""
    if isinstance(value, Mapping):
        given = [f"{key}={_nested(each)}" for key, each in value.items() if key != "name" and each is not None]
        arguments = ", ".join(given)
        return f"{value['name']}({arguments})" if "name" in value and given else value.get("name") or arguments
    if isinstance(value, list):
        return ", ".join(map(_nested, value)) or "none"
    return str(value)


def _nested(value: Any) -> str:
    if isinstance(value, list) and not _is_parts(value):
        return f"[{_listed(value)}]"
    if isinstance(value, Mapping) and "name" not in value:
        return f"{{{part_line(value)}}}"
    return part_line(value)


def _listed(values: list[Any]) -> str:
    """Every value of a short list; of a long one of numbers the first, the last, and how many."""
    if len(values) > SHORT and all(isinstance(each, int | float) for each in values):
        return f"{', '.join(map(str, values[:3]))}, …, {values[-1]}: {len(values)} values"
    return ", ".join(map(_nested, values))


def _is_parts(value: list[Any]) -> bool:
    return bool(value) and all(isinstance(each, Mapping) and "name" in each for each in value)


def status_line(status: str, reason: str, epochs: int, of: int, seconds: float) -> Text:
    """How a run ended.

    Example:
        >>> status_line("interrupted", "Ctrl-C", 3, 10, 12.5).plain
        'interrupted after 3 of 10 epochs and 12 s (Ctrl-C)'
    """
    from rich.text import Text

    text = Text(status, style=f"bold {STATUS.get(status, 'yellow')}")
    text.append(f" after {epochs} of {of} epochs and {duration(seconds)}", style="not bold default")
    return text.append(f" ({reason})", style="not bold default") if reason else text


def crossbar_lines(summary: Mapping[str, Any]) -> list[str]:
    """What a training has cost the devices of its crossbars, from the summary of the run: a line for each array.

    Example:
        >>> totals = {"devices": 1200, "pulses": 5300, "up": 2000, "down": 3300, "energy": 2.5e-9, "stuck": 3}
        >>> fast = {**totals, "pulses": 90, "up": 60, "down": 30, "endurance_used": 0.002}
        >>> for line in crossbar_lines({"status": "finished", "crossbar": totals, "fast_crossbar": fast}):
        ...     print(line)
        crossbar  5,300 pulses (2,000 set, 3,300 reset), 2.5e-09 J, 3 of 1,200 devices stuck
        fast crossbar  90 pulses (60 set, 30 reset), 2.5e-09 J, 3 of 1,200 devices stuck, busiest at 0.2 % of its
        endurance
    """
    return [
        f"{name.replace('_', ' ')}  {_cost(totals)}" for name in CROSSBARS if (totals := summary.get(name)) is not None
    ]


def _cost(totals: Mapping[str, Any]) -> str:
    said = [
        f"{totals['pulses']:,} pulses ({totals['up']:,} set, {totals['down']:,} reset)",
        f"{totals['energy']:.3g} J",
        f"{totals['stuck']:,} of {totals['devices']:,} devices stuck",
    ]
    if (used := totals.get("endurance_used")) is not None:
        said.append(f"busiest at {100 * used:.2g} % of its endurance")
    return ", ".join(said)


def curves(records: Sequence[Mapping[str, Any]], width: int, loss: str = "") -> list[RenderableType]:
    """Every quantity over the epochs, drawn in characters; the loss has the unit of the loss of that name."""
    from rich.text import Text

    from neko_rules.report.terminal import curve_lines

    drawn: list[RenderableType] = []
    for name in quantities(records):
        label, factor = axis_label(name, loss)
        named = {
            kind: [factor * value for value in values(records, prefix + name)]
            for kind, prefix in (("training", ""), ("validation", VALIDATION))
            if any(prefix + name in record for record in records)
        }
        title = Text(f"{label}  ", style="bold")
        for kind in named:
            title.append(f"{kind}  ", style=COLOURS[kind])
        drawn.append(title)
        lines = curve_lines(named, int(records[0]["epoch"]), width=max(20, min(60, width - 20)), height=8)
        drawn.extend(Text.assemble(*((text, COLOURS.get(kind, "")) for text, kind in line)) for line in lines)
        drawn.append(Text(" " * 17 + "epoch", style="dim"))
    return drawn


def shown_path(path: Path) -> str:
    """A path relative to the current folder where that is shorter."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
