"""``latticezoo data check``: driven trajectories beside exact ones, and the driver's own error."""

from __future__ import annotations

from typing import Any

from latticezoo.symmetry.errors import InputError


def check_file(path: str, driver: str | None = None) -> dict[str, Any]:
    """Compare the populations of a dataset file, and its driver with the exact labels.

    Args:
        path: The file.
        driver: A network to measure instead of the one that the file names.

    Returns:
        Plain values: ``populations``, ``driver`` and why one of them is missing, if it is.

    Raises:
        InputError: The file is missing or damaged, holds no driven trajectories, or the driver that
            was asked for does not serve its system.
    """
    from latticezoo.datasets.labelled import LabelledData
    from latticezoo.datasets.populations import compare_populations, driver_errors

    data = LabelledData.open(path)
    if not data.has_driven:
        raise InputError(
            f"{path} holds no trajectories driven by a network, so there is nothing to check."
        )
    facts: dict[str, Any] = {"path": str(path), "missing": []}
    try:
        facts["populations"] = compare_populations(data).to_dict()
    except InputError as error:
        facts["missing"].append(str(error))
    try:
        facts["driver"] = driver_errors(data, driver)
    except InputError as error:
        if driver is not None:
            raise
        facts["missing"].append(str(error))
    return facts


def readable(facts: dict[str, Any], every_time: bool) -> str:
    """The tables as text.

    Args:
        facts: As :func:`check_file` gives them.
        every_time: Show means at every time, not only the deviates.
    """
    lines = [facts["path"]]
    if "populations" in facts:
        lines += _populations(facts["populations"], every_time)
    if "driver" in facts:
        lines += _driver(facts["driver"])
    lines += [f"\n  {reason}" for reason in facts["missing"]]
    return "\n".join(lines)


def _populations(found: dict[str, Any], every_time: bool) -> list[str]:
    from latticezoo.datasets.populations import QUANTITIES

    overall, by_time = found["overall"], found["by_time"]
    counts = [overall[0][side]["trajectories"] for side in ("exact", "learned")]
    lines = [
        "",
        f"  {counts[0]} exact trajectories, {counts[1]} driven by a network: means over all frames",
        "",
    ]
    head = ("quantity", "exact", "driven", "z", "")
    rows = [(row["quantity"], *_means(row), QUANTITIES[row["quantity"]]) for row in overall]
    lines += _table([head, *rows])
    names = [row["quantity"] for row in overall]
    if every_time:
        for name in names:
            at = [(f"{r['time']:g}", *_means(r)) for r in by_time if r["quantity"] == name]
            lines += ["", f"  {name}", "", *_table([("time", "exact", "driven", "z"), *at])]
        return lines
    times = list(dict.fromkeys(row["time"] for row in by_time))
    deviates = {(row["quantity"], row["time"]): _z(row["z"]) for row in by_time}
    table: list[tuple[str, ...]] = [("time", *names)]
    table += [(f"{time:g}", *(deviates[name, time] for name in names)) for time in times]
    return [*lines, "", "  z at equal times", "", *_table(table)]


def _means(row: dict[str, Any]) -> tuple[str, str, str]:
    return _mean(row["exact"]), _mean(row["learned"]), _z(row["z"])


def _mean(found: dict[str, Any]) -> str:
    error = found["error"]
    return f"{found['mean']:.4g}" + ("" if error is None else f" ± {error:.2g}")


def _z(z: float | None) -> str:
    return "-" if z is None else f"{z:+.1f}"


def _driver(found: dict[str, Any]) -> list[str]:
    lines = ["", f"  errors of {found['driver']} against exact labels", ""]
    target = found["target"]
    names = list(dict.fromkeys((target, "force")))
    rows: list[tuple[str, ...]] = [("samples", "number", *(f"{name}: rmse" for name in names))]
    for words, row in found["populations"].items():
        errors = (f"{row[n]['rmse']:.4g} ({100 * row[n]['share']:.1f} % of rms)" for n in names)
        rows.append((words, str(row["samples"]), *errors))
    return [*lines, *_table(rows)]


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return [
        "  " + "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
