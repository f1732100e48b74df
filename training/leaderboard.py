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
    """A printed column: key of the row, heading, how to print, key of a share behind the value."""

    key: str
    heading: str
    form: str
    share: str = ""


COLUMNS = (
    Column("label", "network", "{}"),
    Column("rmse_trajectory", "RMSE, share of\nspread,\ntrajectory", "{:.4f}", "share_trajectory"),
    Column("rmse_random", "RMSE, share of\nspread,\nrandom", "{:.4f}", "share_random"),
    Column("rmse_all", "\n\nall", "{:.4f}"),
    Column("rmse_transfer", "RMSE on\n{transfer}", "{:.4f}"),
    Column("equivariance_float64", "equivariance\nerror,\nfloat64", "{:.0e}"),
    Column("equivariance_float32", "\n\nfloat32", "{:.0e}"),
    Column("parameters", "parameters", "{:,}"),
    Column("training_seconds", "training\n(s)", "{:.0f}"),
    Column("epochs", "epochs", "{}"),
    Column("training_sites_per_second", "training\n(sites/s)", "{:.2g}"),
    Column("microseconds_per_site", "inference,\none thread\n(µs/site)", "{:.3g}"),
)


def ordered(rows: Sequence[Row]) -> list[Row]:
    """Rows from the smallest held-out error to the largest."""
    return sorted(rows, key=lambda row: row.get("rmse_trajectory", row["rmse_all"]))


def print_table(
    rows: Sequence[Row],
    quantity: str,
    transfer: str = "",
    columns: Sequence[Column] = COLUMNS,
) -> None:
    """Print the leaderboard.

    Args:
        rows: One mapping a member.
        quantity: Name and unit of the predicted value.
        transfer: The other lattice, for its column.
        columns: What may be shown; columns that no row has are left out.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    used = [column for column in columns if any(column.key in row for row in rows)]
    for column in used:
        table.add_column(
            column.heading.format(transfer=transfer),
            justify="left" if column.key == "label" else "right",
            vertical="bottom",
            no_wrap=True,
        )
    for row in ordered(rows):
        table.add_row(*[_cell(column, row) for column in used])
    # As wide as it needs: where there is no terminal, rich assumes 80 characters.
    width = max(Console().width, Console(width=1000).measure(table).maximum)
    print(f"\nheld-out errors of {quantity}, and costs")
    Console(highlight=False, width=width).print(table)


def _cell(column: Column, row: Row) -> str:
    value = row.get(column.key)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    text = column.form.format(value)
    share = row.get(column.share)
    return f"{text} {100 * share:5.1f} %" if share is not None else text


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
