"""Train one network, or go on with a run that was interrupted.

    python -m experiments.train --data fashion-mnist --network.stride 2 --network.dim 64 --epochs 24
    torchrun --nproc-per-node 2 -m experiments.train --data digits

Everything goes to runs/<id>/: run.json, metrics.jsonl (a line an epoch), checkpoint.safetensors. Exit status: 0;
1 if another process or the GPU failed; 2 for bad arguments; 130 if interrupted.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro

from experiments.data import load_data
from experiments.training import TrainConfig, train
from ufm._support.arrays import check_integer
from ufm._support.console import run_command
from ufm.solvers.reduced import is_first_process


@dataclass(frozen=True)
class Train:
    """What to train, where and how."""

    config: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)
    out: str | None = None
    """folder of the run; runs/<id>, which follows from the configuration, where none is given"""
    device: str = "auto"
    """auto, cpu or cuda"""
    compiled: bool = False
    """run the network through torch.compile"""
    threads: int = 1
    """of the CPU's arithmetic; results depend on it in the last digits"""
    stop_after: int | None = None
    """stop once so many epochs are done; the same command without it goes on"""

    def run(self) -> int:
        """Train, print the last epoch's figures, and return the exit status."""
        torch.set_num_threads(check_integer("threads", self.threads, minimum=1))
        out = Path("runs") / self.config.name if self.out is None else Path(self.out)
        result = train(
            self.config,
            load_data(self.config.data),
            out,
            device=self.device,
            compiled=self.compiled,
            stop_after=self.stop_after,
        )
        if result.history and is_first_process():
            print(f"{out}")
            for name, value in result.history[-1].items():
                print(f"{name:<20} {'-' if value is None else f'{value:.6g}'}")
        return 0


def main() -> int:
    """Run the command line and return its exit status."""
    return run_command(
        Train,
        prog="python -m experiments.train",
        description=__doc__,
        interrupted="interrupted; the same command goes on from the last epoch",
    )


if __name__ == "__main__":
    sys.exit(main())
