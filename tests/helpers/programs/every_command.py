"""Run every command, its help first, in the current folder; print each that does not end as it should."""

import os
import sys
import traceback

import torch

from experiments import compare, demo, pages, record, suite, sweep, train
from figures import __main__ as figures
from ufm.commands import main as ufm

torch.set_num_threads(1)
# As a shell hands it over, whatever the encoding of file names is.
ROOM = os.fsdecode("new folder, λ".encode())
RUN = f"{ROOM}/run"
SMALL = ["--train-samples=300", "--network.width=2", "--network.dim=10", "--epochs=1", "--batch-size=100"]
HELP = {
    "ufm": ufm.main,
    "train": train.main,
    "record": record.main,
    "compare": compare.main,
    "sweep": sweep.main,
    "suite": suite.main,
    "demo": demo.main,
    "pages": pages.main,
    "figures": figures.main,
}
COMMANDS = [(main, ["--help"]) for main in HELP.values()]
COMMANDS += [(ufm.main, [name, "--help"]) for name in ("predict", "solve", "verify", "compare", "report")]
COMMANDS += [
    (ufm.main, ["predict", "--num-classes", "3"]),
    (ufm.main, ["solve", "--num-classes", "3", "--dim", "3", "--nodes", "2", "--out", f"{ROOM}/s.safetensors"]),
    (ufm.main, ["verify", "--num-classes", "3", "--dim", "3", "--nodes", "2", "--method", "newton"]),
    (train.main, [*SMALL, "--out", RUN]),
    (record.main, [RUN, "--samples", "400"]),
    (compare.main, [RUN, "--samples", "400", "--out", f"{ROOM}/compared"]),
    (ufm.main, ["compare", f"{RUN}/activations_eval.safetensors", "--no-solver"]),
    (ufm.main, ["report", f"{RUN}/activations_eval.safetensors", "--out", f"{ROOM}/page.html"]),
    (sweep.main, ["run", "--out", f"{ROOM}/sweep", "--num-classes", "3", "--nodes", "2"]),
    (sweep.main, ["summary", f"{ROOM}/sweep", "--out", f"{ROOM}/summary.md"]),
]
failed = 0
for main, words in COMMANDS:
    sys.argv = ["command", *words]
    try:
        status = main()
    except SystemExit as end:
        status = end.code
    except BaseException:
        status = traceback.format_exc()
    if status != 0:
        failed += 1
        print(f"FAILED: {words}: {status}".encode("ascii", "backslashreplace").decode(), file=sys.__stderr__)
sys.exit(failed)
