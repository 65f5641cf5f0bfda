"""The tables and plots of the quota benchmark, from its rows."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

_WINDOWS = {
    "sliding": "sliding second",
    "fixed": "fixed second",
    "bucket": "token bucket",
    "in_flight": "calls in flight",
}
_COLORS = ("#0072B2", "#56B4E9", "#009E73", "#D55E00", "#E69F00", "#CC79A7")
_DPI = 140


def run(rows: Path, folder: Path) -> None:
    """Print the three tables as Markdown, and draw the plots into a folder."""
    kept = [json.loads(line) for line in rows.read_text().splitlines()]
    # The last run of a cell is the one that counts.
    quota = list({(r["system"], r["window"], r["qps"], r["delay"]): r for r in kept if r["table"] == "quota"}.values())
    lanes = list({(r["alone"], r["people_share"], r["qps"]): r for r in kept if r["table"] == "lanes"}.values())
    lanes.sort(key=lambda row: (not row["alone"], row["people_share"], row["qps"]))
    cost = list({r["system"]: r for r in kept if r["table"] == "cost"}.values())
    if quota:
        _print_quota(quota)
        _plot_quota(quota, folder / "quota-used.png", refused=False)
        _plot_quota(quota, folder / "quota-refused.png", refused=True)
    if lanes:
        _print_lanes(lanes)
        _plot_waits(lanes, folder / "interactive-waits.png")
    if cost:
        _print_cost(cost)


def _of_ceiling(row: dict[str, Any]) -> float:
    return float(100 * row["used"] * (1 + row["delay"]))


def _refused(row: dict[str, Any]) -> float:
    return float(1000 * row["refused"] / max(1, row["accepted"]))


def _systems(rows: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(row["system"] for row in rows))


def _print_quota(rows: Sequence[dict[str, Any]]) -> None:
    systems = _systems(rows)
    print("\nEach cell: % of the ceiling 1/(1+J) used, / refused calls for 1 000 accepted.\n")
    print(f"| window | calls/s | delay, ms | {' | '.join(systems)} |")
    print(f"| --- | --- | --- |{' --- |' * len(systems)}")
    places = sorted({(list(_WINDOWS).index(r["window"]), r["qps"], r["delay"]) for r in rows})
    for window, qps, delay in places:
        name = list(_WINDOWS)[window]
        cells = []
        for system in systems:
            here = [r for r in rows if (r["system"], r["window"], r["qps"], r["delay"]) == (system, name, qps, delay)]
            cells.append(f"{_of_ceiling(here[0]):.1f} / {_refused(here[0]):.1f}" if here else "")
        print(f"| {_WINDOWS[name]} | {qps:g} | 0-{1000 * delay:g} | {' | '.join(cells)} |")
    print("\nWait from being ready for the call to sending it, s, p50 / p95 (the windows up to 10 calls/s together).\n")
    print(f"| calls/s | delay, ms | {' | '.join(systems)} |\n| --- | --- |{' --- |' * len(systems)}")
    for qps, delay in sorted({(r["qps"], r["delay"]) for r in rows}):
        cells = []
        for system in systems:
            here = [r for r in rows if (r["system"], r["qps"], r["delay"]) == (system, qps, delay) and r["p50"]]
            cells.append(f"{here[0]['p50']:.2f} / {here[0]['p95']:.2f}" if here else "")
        print(f"| {qps:g} | 0-{1000 * delay:g} | {' | '.join(cells)} |")


def _print_lanes(rows: Sequence[dict[str, Any]]) -> None:
    print("\n| calls/s | people come | p50, s | p95, s | p99, s | aim for p95, s | bulk, calls/s | used | refused |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for row in rows:
        print(
            f"| {row['qps']:g} | {_manner(row)} | {row['p50']:.3f} | {row['p95']:.3f} |"
            f" {row['p99']:.3f} | {row['aim']:.3f} | {row['bulk_per_second']:.2f} | {100 * row['used']:.1f} % |"
            f" {sum(row['refused'].values())} |"
        )


def _manner(row: dict[str, Any]) -> str:
    return "one at a time" if row["alone"] else f"at random, {100 * row['people_share']:.0f} % of the rate"


def _print_cost(rows: Sequence[dict[str, Any]]) -> None:
    print("\n| one job | CPU, ms | Postgres round trips | Redis commands | jobs/s | jobs/s a core |")
    print("| --- | --- | --- | --- | --- | --- |")
    for row in rows:
        print(
            f"| {row['system']} | {row['cpu_ms']:.1f} | {row['postgres_round_trips']:.1f} |"
            f" {row['redis_commands']:.1f} | {row['jobs_per_second']:.0f} | {row['jobs_per_core']:.0f} |"
        )


def _plot_quota(rows: Sequence[dict[str, Any]], path: Path, *, refused: bool) -> None:
    delays = sorted({row["delay"] for row in rows})
    systems, rates = _systems(rows), sorted({row["qps"] for row in rows})
    figure, axes = plt.subplots(len(_WINDOWS), len(delays), figsize=(12, 11), sharex=True, sharey=True, squeeze=False)
    width = 0.8 / len(systems)
    for line, (window, title) in enumerate(_WINDOWS.items()):
        for column, delay in enumerate(delays):
            axis = axes[line][column]
            for number, system in enumerate(systems):
                heights, places = [], []
                for place, qps in enumerate(rates):
                    here = [
                        row
                        for row in rows
                        if (row["system"], row["window"], row["qps"], row["delay"]) == (system, window, qps, delay)
                    ]
                    if here:
                        heights.append(_refused(here[0]) if refused else _of_ceiling(here[0]))
                        places.append(place - 0.4 + (number + 0.5) * width)
                axis.bar(places, heights, width * 0.92, color=_COLORS[number % len(_COLORS)], label=system)
            axis.set_xticks(range(len(rates)), [f"{qps:g}/s" for qps in rates])
            axis.grid(axis="y", alpha=0.3)
            axis.set_axisbelow(True)
            if refused:
                axis.set_yscale("symlog", linthresh=1)
                axis.axhline(1, color="black", linewidth=0.8, linestyle="--")
            else:
                axis.set_ylim(0, 110)
                axis.axhline(99, color="black", linewidth=0.8, linestyle="--")
            if line == 0:
                axis.set_title(f"network delay 0-{1000 * delay:g} ms")
            if column == 0:
                axis.set_ylabel(title)
    what = "refused calls for 1 000 accepted (aim: below the line)" if refused else "% of the ceiling 1/(1+J) used"
    figure.suptitle(what)
    handles, labels = axes[1][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncol=len(systems), frameon=False)
    figure.tight_layout(rect=(0, 0.04, 1, 0.98))
    figure.savefig(path, dpi=_DPI)
    plt.close(figure)


def _plot_waits(rows: Sequence[dict[str, Any]], path: Path) -> None:
    figure, axis = plt.subplots(figsize=(8, 4.5))
    calm = [row for row in rows if row["alone"]]
    for number, row in enumerate(calm):
        waits = sorted(row["waits"])
        shares = [(place + 1) / len(waits) for place in range(len(waits))]
        axis.step([wait * row["qps"] for wait in waits], shares, color=_COLORS[number], label=f"{row['qps']:g} calls/s")
    axis.axvline(1.5, color="black", linewidth=0.8, linestyle="--", label="1.5 slots")
    axis.axhline(0.95, color="black", linewidth=0.8, linestyle=":")
    axis.set_xlim(0, 4)
    axis.set_xlabel("wait of a person's job, in slots")
    axis.set_ylabel("share of jobs")
    axis.set_title("A person's wait while 20 000 bulk jobs stand in line")
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=_DPI)
    plt.close(figure)
