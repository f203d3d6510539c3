"""Several processes give one answer, and the death of one of them a clear error."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import ufm

PROGRAM = Path(__file__).parents[1] / "helpers" / "programs" / "distributed_solve.py"


def launch(processes: int, out: Path, kill_after: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(
        [*command, str(PROGRAM), str(out), str(kill_after)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.parametrize("counts", [(1, 2), pytest.param((1, 2, 4), marks=pytest.mark.slow)])
def test_one_two_and_four_processes_agree(tmp_path: Path, counts: tuple[int, ...]):
    found = {}
    for processes in counts:
        out = tmp_path / f"{processes}.json"
        result = launch(processes, out)
        assert result.returncode == 0, result.stderr[-3000:]
        found[processes] = json.loads(out.read_text())
    law = ufm.Mixup(6, priors=(0.3, 0.2, 0.2, 0.1, 0.1, 0.1))
    alone = ufm.solve(ufm.UFM(law.targets(11), 8, 5e-3, 5e-3, bias_decay=0.0), "newton", tol=1e-14)
    for figures in found.values():
        assert figures["objective"] == pytest.approx(alone.objective, rel=1e-12)
        assert 0 <= figures["objective"] - figures["lower_bound"] + 1e-13 < 1e-11
        for name in ("gram", "bias"):
            first, this = (torch.tensor(f[name], dtype=torch.float64) for f in (found[1], figures))
            assert (this - first).abs().max() <= 1e-12 * max(1.0, first.abs().max().item())


def test_a_killed_process_ends_the_solve_with_a_clear_error(tmp_path: Path):
    begin = time.monotonic()
    result = launch(2, tmp_path / "never.json", kill_after=9)
    assert result.returncode != 0
    assert time.monotonic() - begin < 60
    assert not (tmp_path / "never.json").exists()
    # Either the survivor speaks, or torchrun, which names the signal, has stopped it first.
    assert "another process of the solve has ended" in result.stderr or "SIGKILL" in result.stderr


def test_a_lone_process_is_refused():
    problem = ufm.UFM(ufm.Mixup(3).targets(2), 3, 0.01, 0.01)
    with pytest.raises(ValueError, match="^distributed: .*torchrun"):
        ufm.solve(problem, distributed=True)
    with pytest.raises(ValueError, match="^distributed: .*'lbfgs'"):
        ufm.solve(problem, "lbfgs", distributed=True)
    with pytest.raises(ValueError, match="^stream: .*'adam'"):
        ufm.solve(problem, "adam", stream=True)
