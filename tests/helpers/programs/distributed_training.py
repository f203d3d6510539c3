"""Train on the processes that torchrun started, through the command line; check shared BatchNorm against torch's."""

import sys
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from experiments import train
from experiments.training.processes import join, share_statistics

out, words = Path(sys.argv[1]), sys.argv[2:]


def run(folder: str, *more: str) -> int:
    sys.argv = ["train", *words, "--device=cpu", f"--out={out / folder}", *more]
    return train.main()


def check_norm(norm: nn.Module, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Compare two batches with the norm of them all, on one process."""
    generator = torch.Generator().manual_seed(0)
    processes = join(shape[0])
    own = processes.share(shape[0])
    shared = nn.Sequential(type(norm)(shape[1]))
    share_statistics(shared, torch.device("cpu"))
    tolerance = {"rtol": 0.02, "atol": 0.02} if dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-5}
    with torch.no_grad():
        norm.weight.uniform_(generator=generator)
        norm.bias.uniform_(generator=generator)
    shared[0].load_state_dict(norm.state_dict())
    for _ in range(2):
        whole = (3 + 2 * torch.randn(shape, generator=generator)).to(dtype).requires_grad_()
        part = whole.detach()[own].requires_grad_()
        target = torch.randn(shape, generator=generator)
        expected, found = norm(whole), shared(part)
        assert found.dtype == expected.dtype
        torch.testing.assert_close(found, expected[own], **tolerance)
        norm.zero_grad()
        shared.zero_grad()
        ((expected - target) ** 4).sum().backward()
        ((found - target[own]) ** 4).sum().backward()
        # The gradient with respect to this part's inputs takes all parts' losses into account.
        scale = whole.grad.abs().max().item()
        torch.testing.assert_close(part.grad / scale, whole.grad[own] / scale, **tolerance)
        for mine, all_of_it in zip(shared.parameters(), norm.parameters(), strict=True):
            dist.all_reduce(mine.grad)
            torch.testing.assert_close(mine.grad, all_of_it.grad, rtol=tolerance["rtol"], atol=0.01)
    for name, value in norm.state_dict().items():
        torch.testing.assert_close(shared[0].state_dict()[name], value, rtol=tolerance["rtol"], atol=1e-4)
    torch.testing.assert_close(shared.eval()(part), norm.eval()(part))


warnings.simplefilter("error")
torch.set_num_threads(1)
assert run("indivisible", "--batch-size=101") == 2
assert not (out / "indivisible").exists()
for dtype in (torch.float32, torch.bfloat16):
    check_norm(nn.BatchNorm1d(5), (8, 5), dtype)
    check_norm(nn.BatchNorm2d(3), (6, 3, 4, 2), dtype)
assert run("parts", "--stop-after=2") == 0
assert run("parts") == 0
assert run("half", "--precision=bfloat16", "--mixing.kind=manifold", "--epochs=1") == 0
