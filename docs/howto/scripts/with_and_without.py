"""What mixup did to this network: one page on two networks, trained with and without it."""

from pathlib import Path

from toy import DECAY, mixed_loader, trained_model, unmixed_loader

import ufm
from ufm.reports import read_run, report

for name, model in {"with": trained_model(), "without": trained_model(unmixed_loader())}.items():
    ufm.record(model, mixed_loader(), out=f"{name}.safetensors")

runs = [read_run(f"{name}.safetensors", weight_decay=DECAY) for name in ("with", "without")]
print(report(runs, "with_and_without.py").write(Path("report.html")))
