"""The README's results table, from committed runs: `python -m experiments.summary experiments/results/*`."""

import json
import sys
from pathlib import Path
from typing import Any

_HEADER = (
    "| run | mode | prediction | fitted numbers | R² per sample | same class | different class | per pair and λ bin |",
    "| --- | --- | --- | --- | --- | --- | --- | --- |",
)


def summary(folders: list[Path]) -> str:
    """Return a Markdown table: for each run, the network's key figures and the score of every prediction."""
    lines = []
    for folder in folders:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        lines += [f"**{folder.name}**: {_network(results)}", "", *_HEADER]
        for mode, comparison in results["comparison"].items():
            for score in comparison["scores"]:
                values = " | ".join(f"{score[key]:.3f}" for key in ("r2", "r2_same", "r2_mixed", "r2_binned"))
                lines.append(f"| {folder.name} | {mode} | {score['name']} | {score['parameters']} | {values} |")
        lines.append("")
    return "\n".join(lines).rstrip()


def _network(results: dict[str, Any]) -> str:
    comparison = results["comparison"]["eval"]
    free = comparison.get("beta_fit_free")
    figures = [
        f"weight decay {results['config']['train']['weight_decay']:g}",
        f"test accuracy {100 * results['network']['test_accuracy']:.1f} %",
        f"classifier to its nearest ETF {comparison['etf_error']:.3f}",
        f"β fitted {comparison['beta']:.0f}, fit-free {'none' if free is None else f'{free:.0f}'} (eval mode)",
    ]
    collapse = comparison.get("collapse")
    if collapse:
        figures.append("NC1, NC2, NC3 " + ", ".join(f"{collapse[key]:.2f}" for key in ("nc1", "nc2", "nc3")))
    return "; ".join(figures) + "."


if __name__ == "__main__":
    print(summary([Path(argument) for argument in sys.argv[1:]]))
