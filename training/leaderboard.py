"""The leaderboard of a comparison: one row a member, printed and saved as CSV and JSON."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from latticezoo.simulate.files import atomic_write

Row = Mapping[str, Any]


class Column(NamedTuple):
    """A column: key of the row, headings, how to print the value."""

    key: str
    title: str
    unit: str
    form: str


_ERRORS = "{:.4f}"
COLUMNS = (
    Column("label", "network", "", "{}"),
    Column("rmse_trajectory", "RMSE, trajectory", "{quantity}", _ERRORS),
    Column("share_trajectory", "share of spread", "%", "percent"),
    Column("rmse_random", "RMSE, random", "{quantity}", _ERRORS),
    Column("share_random", "share of spread", "%", "percent"),
    Column("rmse_transfer", "RMSE, {transfer}", "{quantity}", _ERRORS),
    Column("equivariance_float64", "equivariance, float64", "relative", "{:.0e}"),
    Column("equivariance_float32", "equivariance, float32", "relative", "{:.0e}"),
    Column("parameters", "parameters", "", "{:,}"),
    Column("training_seconds", "training", "s", "{:.0f}"),
    Column("sites_per_second", "inference", "sites/s", "{:.2g}"),
)


def ordered(rows: Sequence[Row]) -> list[Row]:
    """Rows from the smallest held-out error to the largest."""
    return sorted(rows, key=lambda row: row.get("rmse_trajectory", row["rmse_all"]))


def print_table(rows: Sequence[Row], quantity: str, transfer: str = "") -> None:
    """Print the leaderboard.

    Args:
        rows: One mapping a member.
        quantity: Name and unit of the predicted value.
        transfer: The other lattice, for its column.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title="held-out errors", title_justify="left")
    used = [column for column in COLUMNS if any(column.key in row for row in rows)]
    for column in used:
        unit = column.unit.format(quantity=quantity)
        title = column.title.format(transfer=transfer)
        heading = f"{title}\n({unit})" if unit else title
        table.add_column(
            heading.replace(", ", ",\n", 1),
            justify="left" if column.key == "label" else "right",
            no_wrap=column.key == "label",
        )
    for row in ordered(rows):
        table.add_row(*[_cell(column, row.get(column.key)) for column in used])
    console = Console(highlight=False)
    # Not a terminal: do not fold the columns to the 80 characters that rich assumes there.
    Console(highlight=False, width=max(console.width, 132)).print(table)


def _cell(column: Column, value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if column.form == "percent":
        return f"{100 * value:.1f}"
    return column.form.format(value)


def write_csv(path: str | os.PathLike[str], rows: Sequence[Row]) -> Path:
    """Save the rows as CSV, every scalar of them, best first."""
    table = [
        {key: value for key, value in row.items() if not isinstance(value, Mapping | list)}
        for row in ordered(rows)
    ]
    names = list(dict.fromkeys(name for row in table for name in row))
    with atomic_write(path) as temporary, temporary.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, names, restval="")
        writer.writeheader()
        writer.writerows(table)
    return Path(path)
