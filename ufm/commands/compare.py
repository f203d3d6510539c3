"""`ufm compare`."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from ufm._support.files import to_csv
from ufm._support.progress import long_work
from ufm.commands.model import Labels
from ufm.commands.output import print_fields, print_json, print_table

if TYPE_CHECKING:
    from ufm.networks.activations import Activations
    from ufm.networks.comparison_result import Comparison

# Columns of the printed table; JSON and CSV have them all.
_SHOWN = ("name", "parameters", "r2", "r2_same", "r2_mixed", "r2_binned", "angle_mixed", "width_50", "depth_50")


@dataclass(frozen=True, kw_only=True)
class Compare(Labels):
    """Recorded activations of networks against closed form, solver and straight line."""

    files: tyro.conf.Positional[tuple[str, ...]]
    """files written by ufm.record or Activations.save; .npz or .safetensors files with the arrays features, classifier
    and labels (and bias and logits); or folders of compared runs, with run.json"""
    weight_decay: float | None = None
    """lambda_W of the trained classifiers, > 0; needed for the fit-free beta"""
    bins: int = 10
    """of lambda, >= 1"""
    resamples: int = 200
    """for the bootstrap bands of the channel curves (in the JSON), >= 0"""
    solver: bool = True
    """also fit the networks' own classifiers, and check the closed form by direct solves"""
    layers: bool = True
    """also say how linear and how channel-like the recorded layers are"""
    json: bool = False
    """print JSON instead of tables"""
    csv: bool = False
    """print CSV instead of tables: a row per file and prediction"""

    def run(self) -> int:
        """Compare each file, and print."""
        if not self.files:
            raise ValueError("files: got none, expected at least one file of recorded activations")
        if self.json and self.csv:
            raise ValueError("json, csv: got both, expected one of the two")
        compared = {file: self._compared(file) for file in long_work(self.files, "compare", unit="files")}
        if self.csv:
            rows = [
                {"file": file, **row} for file, (_, comparison, _) in compared.items() for row in comparison.table()
            ]
            print(to_csv(rows), end="")
        elif self.json:
            everything = [
                {
                    "file": file,
                    "description": description,
                    **asdict(comparison),
                    "table": comparison.table(),
                    "layers": layers,
                }
                for file, (description, comparison, layers) in compared.items()
            ]
            print_json(everything[0] if len(everything) == 1 else everything)
        else:
            for file, (_, comparison, layers) in compared.items():
                _print(file if len(compared) > 1 else None, comparison, layers)
        return 0

    def _compared(self, file: str) -> tuple[dict[str, str], "Comparison", list[dict[str, Any]]]:
        from ufm.networks.files import load

        if not Path(file).is_dir():
            return self._compare(load(file))
        from ufm.runs.compared import read_run

        run = read_run(file)
        return run.recordings[run.mode], run.comparison, [asdict(layer) for layer in run.layers]

    def _compare(self, activations: "Activations") -> tuple[dict[str, str], "Comparison", list[dict[str, Any]]]:
        from ufm.networks.comparison import compare
        from ufm.networks.layers import layer_pattern

        comparison = compare(
            activations,
            self.law_of(activations.logits.shape[1]),
            weight_decay=self.weight_decay,
            solver=self.solver,
            bins=self.bins,
            resamples=self.resamples,
        )
        mixed = bool((activations.decoded.classes == 2).any())
        names = (*activations.layers, "features") if self.layers and activations.layers and mixed else ()
        layers = [asdict(layer_pattern(activations, name, bins=self.bins)) for name in names]
        return activations.description, comparison, layers


def _print(title: str | None, comparison: "Comparison", layers: list[dict[str, Any]]) -> None:
    if title is not None:
        print(f"\n{title}")
    values = asdict(comparison)
    print_fields({name: value for name, value in values.items() if not isinstance(value, dict | list)})
    print_fields(values["collapse"] or {})
    if comparison.labels is not None:
        print(f"labels: {comparison.labels.words()}")
    if comparison.departure is not None:
        print(comparison.departure.words())
    print_table([{name: row[name] for name in _SHOWN if name in row} for row in comparison.table()])
    if layers:
        print_table(layers)
