"""One page with all model cards: errors, costs and symmetry, sortable, with a plot for each system.

  latticezoo leaderboard                          # the cards of the library, to leaderboard.html
  latticezoo leaderboard --cards cards --out board.html

The page is one file: no network, no other files, light and dark, wide and narrow. Links lead to the
pages of the cards, by relative paths, or below --links URL. What a card has not measured is a dash.
"""

from __future__ import annotations

import argparse
import html
import math
import os
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

from latticezoo.simulate.files import atomic_write
from latticezoo.symmetry.errors import InputError
from latticezoo.training.card_check import METRICS, PAGE, missing, read_metrics


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add(
        "--cards",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="folder of cards instead of those of the library; may be repeated",
    )
    add("--out", type=Path, default=Path("leaderboard.html"), help="default leaderboard.html")
    add("--links", metavar="URL", help="where the cards are published (default: where they lie)")


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    folders = find_cards(arguments.cards)
    home = arguments.out.expanduser().resolve().parent
    rows = []
    for folder in folders:
        if arguments.links:
            link = f"{arguments.links.rstrip('/')}/{folder.name}"
        else:
            link = Path(os.path.relpath(folder.resolve() / PAGE, home)).as_posix()
        rows.append(card_row(read_metrics(folder), link))
    with atomic_write(arguments.out) as temporary:
        temporary.write_text(board_page(rows), encoding="utf-8")
    print(f"wrote {arguments.out}")
    return 0


def find_cards(folders: Sequence[Path]) -> list[Path]:
    """All cards below some folders, or those of the library where none is given.

    Raises:
        InputError: There is none.
    """
    from latticezoo.zoo.sources import card_folder, list_pretrained

    if not folders:
        return [card_folder(name) for name in list_pretrained()]
    found = sorted(path.parent for folder in folders for path in folder.glob(f"*/{METRICS}"))
    if not found:
        raise InputError(f"there are no cards in {', '.join(map(str, folders))}.")
    return found


class Column(NamedTuple):
    """A column: key of the row, heading, how to print a number, whether it is one."""

    key: str
    heading: str
    form: str = "{}"
    number: bool = True


COLUMNS = (
    Column("name", "card", number=False),
    Column("system", "system", number=False),
    Column("share", "held-out error (% of spread)", "{:.2f}"),
    Column("rmse", "RMSE", "{:.4f}"),
    Column("transfer", "on another size (%)", "{:.2f}"),
    Column("rollout", "roll-out − exact (std. errors)", "{:.1f}"),
    Column("symmetry", "symmetry error", "{:.0e}"),
    Column("microseconds", "time per site (µs)", "{:.2f}"),
    Column("parameters", "parameters", "{:,}"),
    Column("training", "training (s)", "{:.0f}"),
)


def card_row(metrics: Mapping[str, Any], link: str) -> dict[str, Any]:
    """What the page shows of one card.

    Args:
        metrics: Its ``metrics.json``.
        link: Where its page is.

    Returns:
        Values by the keys of the columns, None where not measured; shares in per cent.
    """
    found = metrics["measurements"]
    transfer = found.get("rmse_transfer")
    if transfer is not None:
        spread = found.get("transfer_spread_trajectory", found["transfer_spread_all"])
        transfer *= 100 / spread
    return {
        "name": metrics["name"],
        "network": metrics["name"].split(".")[0],
        "link": link,
        "system": _system(metrics),
        "lattice": metrics["lattice"],
        "share": 100 * found.get("share_trajectory", found["share_all"]),
        "rmse": found.get("rmse_trajectory", found["rmse_all"]),
        "transfer": transfer,
        "transfer_lattice": found.get("transfer_lattice"),
        "rollout": _worst(metrics.get("rollout")),
        "symmetry": found["equivariance_float32"],
        "microseconds": 1e6 / found["sites_per_second"],
        "parameters": found["parameters"],
        "training": found["training_seconds"],
        "hardware": metrics["hardware"]["cpu"],
        "missing": missing(metrics),
    }


def _system(metrics: Mapping[str, Any]) -> str:
    """What is compared in one panel: a parameter set, or a task where there is no name for it.

    Time series of a system are another task than its forces, whatever the parameters.
    """
    preset = metrics["data"]["options"].get("preset")
    series = "frames_per_second" in metrics["measurements"]
    return str(preset if preset and not series else metrics["task"])


def _worst(rollout: Mapping[str, Any] | None) -> float | None:
    """Largest difference of network and exact run, in standard errors of both together.

    Violations of a law are rounding, far above a standard error of their own; they are left out. Of
    climates those with noise count, where there are any: without it they are those of means.
    """
    if rollout is None:
        return None
    entries = [e for e in rollout["observables"] if "violation" not in e["name"]]
    noisy = [entry for entry in entries if entry["name"].endswith("with noise")]
    return max(
        abs(entry["network"] - entry["exact"])
        / max(math.hypot(entry["network_error"], entry["exact_error"]), 1e-12)
        for entry in noisy or entries
    )


def board_page(rows: Sequence[Mapping[str, Any]]) -> str:
    """The page, HTML.

    Args:
        rows: As :func:`card_row` gives them.
    """
    rows = sorted(rows, key=lambda row: (row["system"], row["share"]))
    systems = list(dict.fromkeys(row["system"] for row in rows))
    networks = sorted({row["network"] for row in rows})
    lacking = sum(bool(row["missing"]) for row in rows)
    hardware = ", ".join(sorted({row["hardware"] for row in rows}))
    introduction = (
        f"{len(rows)} trained networks on {len(systems)} systems, each measured on held-out "
        "trajectories and described by a card. Errors are shares of the spread of the target; the "
        "symmetry error is the largest over the whole group of the task, in float32; times are "
        f"those of the hardware in the cards ({hardware})."
    )
    if lacking:
        introduction += f" {lacking} cards still lack a measurement, shown as a dash."
    heads = "".join(
        f'<th scope="col" data-kind="{"number" if column.number else "text"}"'
        f"{'' if column.number else ' class=text'}"
        f"{' aria-sort=ascending' if column.key == 'system' else ''}>"
        f'<button type="button">{html.escape(column.heading)}</button></th>'
        for column in COLUMNS
    )
    orders = "".join(
        f'<option value="{number}"{" selected" if column.key == "system" else ""}>'
        f"{html.escape(column.heading)}</option>"
        for number, column in enumerate(COLUMNS)
    )
    template = Template((files("latticezoo.training") / "board.html").read_text(encoding="utf-8"))
    return template.substitute(
        introduction=html.escape(introduction),
        systems="".join(f"<option>{html.escape(name)}</option>" for name in systems),
        orders=orders,
        heads=heads,
        rows="\n".join(map(_table_row, rows)),
        panels="\n".join(
            _panel(name, [row for row in rows if row["system"] == name], rows, networks)
            for name in systems
        ),
    )


def _table_row(row: Mapping[str, Any]) -> str:
    cells = []
    for column in COLUMNS:
        value = row[column.key]
        shown = "–" if value is None else html.escape(column.form.format(value))
        if column.key == "name":
            title = "complete" if not row["missing"] else f"lacks {'; '.join(row['missing'])}"
            link, hint = html.escape(row["link"]), html.escape(title)
            shown = re.sub(r"([._])", r"\1<wbr>", shown)
            shown = f'<a href="{link}" title="{hint}">{shown}</a>'
        elif column.key == "system":
            shown += f" <small>{html.escape(row['lattice'])}</small>"
        elif column.key == "transfer" and value is not None:
            shown += f" <small>{html.escape(str(row['transfer_lattice']))}</small>"
        kind = "name text" if column.key == "name" else "" if column.number else "text"
        data = "" if value is None else html.escape(str(value))
        cells.append(
            f'<td class="{kind}" data-label="{html.escape(column.heading)}" data-value="{data}">'
            f"{shown}</td>"
        )
    return f'<tr data-system="{html.escape(row["system"])}">{"".join(cells)}</tr>'


#: Size of a panel, and the corners of its axes, in units of its view box.
#: Colours that the style sheet defines.
_COLOURS = 7
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 340, 210, 44, 215, 12, 168


def _panel(
    system: str,
    rows: Sequence[Mapping[str, Any]],
    all_rows: Sequence[Mapping[str, Any]],
    networks: Sequence[str],
) -> str:
    """Error against time of one system as SVG, on the axes of all systems."""
    from latticezoo.training.cost_plot import spread_out

    x_ticks = decades([row["microseconds"] for row in all_rows])
    y_ticks = decades([row["share"] for row in all_rows])

    def across(value: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * _position(value, x_ticks)

    def up(value: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * _position(value, y_ticks)

    parts = []
    for tick in x_ticks:
        x = across(tick)
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_BOTTOM}"/>')
        parts.append(f'<text x="{x:.1f}" y="{_BOTTOM + 14}" text-anchor="middle">{tick:g}</text>')
    for tick in y_ticks:
        y = up(tick)
        parts.append(f'<line class="axis" x1="{_LEFT}" x2="{_RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    middle = (_LEFT + _RIGHT) / 2
    parts.append(
        f'<text x="{middle}" y="{_BOTTOM + 32}" text-anchor="middle">time per site (µs)</text>'
        f'<text transform="translate(11 {(_TOP + _BOTTOM) / 2}) rotate(-90)" '
        'text-anchor="middle">error (% of spread)</text>'
    )
    ordered = sorted(rows, key=lambda row: up(row["share"]))
    heights = spread_out([up(row["share"]) for row in ordered], 15)
    colours = panel_colours([row["network"] for row in ordered], networks)
    for row, height in zip(ordered, heights, strict=True):
        colour = f"var(--c{colours[row['network']]})"
        x, y = across(row["microseconds"]), up(row["share"])
        name = html.escape(row["network"])
        parts.append(
            f'<g style="color:{colour}"><path d="M{x:.1f} {y:.1f}L{_RIGHT + 6} {height:.1f}" '
            'stroke="currentColor" stroke-width=".7" opacity=".6" fill="none"/>'
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="currentColor"><title>{name}: '
            f"{row['share']:.2f} %, {row['microseconds']:.3g} µs</title></circle>"
            f'<text class="name" x="{_RIGHT + 9}" y="{height + 4:.1f}" '
            f'style="fill:currentColor">{name}</text></g>'
        )
    title = html.escape(system)
    return (
        f'<figure data-system="{title}"><figcaption>{title}</figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="error against time per site, {title}">{"".join(parts)}</svg></figure>'
    )


def panel_colours(shown: Sequence[str], networks: Sequence[str]) -> dict[str, int]:
    """Colours of the networks of a panel: that of a network everywhere, unless another has it here.

    Args:
        shown: The networks of the panel.
        networks: All networks of the page.

    Returns:
        Numbers of colours, different as long as there are enough.
    """
    found: dict[str, int] = {}
    for network in sorted(set(shown)):
        own = networks.index(network) % _COLOURS
        free = [k for k in range(_COLOURS) if k not in found.values()]
        found[network] = own if own in free or not free else free[0]
    return found


def decades(values: Sequence[float]) -> list[float]:
    """Powers of ten from below the smallest of some positive values to above the largest."""
    low = math.floor(math.log10(min(values)) + 1e-9)
    high = max(math.ceil(math.log10(max(values)) - 1e-9), low + 1)
    return [10.0**power for power in range(low, high + 1)]


def _position(value: float, ticks: Sequence[float]) -> float:
    """Place of a value between the first tick and the last, on a logarithmic scale."""
    return math.log(value / ticks[0]) / math.log(ticks[-1] / ticks[0])
