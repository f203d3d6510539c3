"""Solve a UFM on the processes that torchrun started; the first writes what it found, the last may be killed."""

import json
import os
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist

import ufm

torch.set_num_threads(1)
out, kill_after = Path(sys.argv[1]), int(sys.argv[2])
if kill_after:
    calls, original = 0, dist.all_reduce

    def all_reduce(tensor: torch.Tensor) -> None:
        global calls
        calls += 1
        if calls == kill_after and dist.get_rank() == dist.get_world_size() - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        original(tensor)

    dist.all_reduce = all_reduce

law = ufm.Mixup(6, priors=(0.3, 0.2, 0.2, 0.1, 0.1, 0.1))
problem = ufm.UFM(law.pair_targets(11), 8, 5e-3, 5e-3, bias_decay=0.0)
# The tolerance is out of reach: the solve goes on until rounding lets no step improve any more.
# Every process runs into the same error where one is killed, and says so itself.
try:
    solution = ufm.solve(problem, "newton", tol=1e-17, distributed=True)
except RuntimeError as error:
    print(f"caught: {error}", file=sys.stderr, flush=True)
    sys.exit(3)
if dist.get_rank() == 0:
    assert solution.bias is not None
    figures = {
        "objective": solution.objective,
        "lower_bound": solution.certificate.lower_bound,
        "gradient_norm": solution.gradient_norm,
        "gram": (solution.classifier @ solution.classifier.T).tolist(),
        "bias": (solution.bias - solution.bias.mean()).tolist(),
    }
    out.write_text(json.dumps(figures))
dist.destroy_process_group()
