"""`ufm report`."""

import shlex
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from ufm._support.files import check_target
from ufm._support.progress import long_work
from ufm.commands.model import Labels
from ufm.commands.output import print_json

if TYPE_CHECKING:
    from ufm.runs.record import RunRecord


@dataclass(frozen=True, kw_only=True)
class Report(Labels):
    """One HTML page on trained networks: the paper's claims with evidence and verdict, pictures, configuration."""

    runs: tyro.conf.Positional[tuple[str, ...]]
    """folders of compared runs or of a demo (with run.json), or files of recorded activations, which are compared here
    and now"""
    out: str = "report.html"
    """file to write"""
    weight_decay: float | None = None
    """lambda_W of its classifier, > 0; needed for the fit-free beta"""
    loss: str = "cross_entropy"
    """that it was trained with: cross_entropy or mean_squared_error"""
    classes: tuple[int, int, int] = (0, 1, 2)
    """the three classes of the planar picture"""
    json: bool = False
    """print the claims as JSON"""

    def run(self) -> int:
        """Write the page and print where it is; exit status 1 if an exact claim failed."""
        if not self.runs:
            raise ValueError("runs: got none, expected at least one folder or file")
        check_target("out", self.out)
        from ufm.reports import report

        runs = [self._read(path) for path in long_work(self.runs, "read", unit="runs")]
        made = report(runs, self._command(), classes=self.classes)
        path = made.write(self.out)
        if self.json:
            print_json(
                {
                    "report": path.as_posix(),
                    "exact": [claim.record() for claim in made.exact],
                    "runs": [
                        {
                            "name": section.run.name,
                            "source": section.run.source,
                            "claims": [claim.record() for claim in section.claims + section.others],
                        }
                        for section in made.sections
                    ],
                }
            )
        else:
            print(made.summary())
            print(path)
        return 1 if made.failed else 0

    def _read(self, path: str) -> "RunRecord":
        from ufm.networks.files import load
        from ufm.reports import read_run

        # The number of classes is the file's.
        given = self.alpha != "auto" and Path(path).is_file()
        law = self.law_of(len(load(path).classifier) if given else 2)
        return read_run(path, law=law if given else None, weight_decay=self.weight_decay, loss=self.loss)

    def _command(self) -> str:
        """Return the command line that makes this page, options as given."""
        words = ["ufm", "report", *self.runs]
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name not in ("runs", "json") and value != field.default:
                values = value if isinstance(value, tuple) else (value,)
                words += [f"--{field.name.replace('_', '-')}", *map(str, values)]
        return shlex.join(words)
