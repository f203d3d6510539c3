"""The main job: closed form, direct solver and two trained networks, side by side, in one report.

One network has fitted its mixed labels, on 20 images per class, and one has not; of both it is said how far they are
from having fitted them, and what that does to the channel.

    python -m experiments.demo [--out runs/demo] [--train.epochs 400] ...

Run again after an interruption, it goes on from the last finished epoch. Exit status 1 means that an exact claim
(closed form against solver) failed; how well the network fits never changes it.
"""

import platform
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import tyro

import ufm
from experiments.data import load_data
from experiments.networks import NetworkConfig
from experiments.record import Recording, record_run
from experiments.training import OptimiserConfig, TrainConfig, train
from experiments.training.run import TrainedRun, trained_run
from ufm._support.arrays import check_integer, check_number
from ufm._support.console import guarded
from ufm._support.files import make_folder
from ufm._support.tensorfile import write_tensors
from ufm.labels.targets import pair_labels
from ufm.reports import Claim, read_run, report
from ufm.reports.page import Section
from ufm.reports.pictures import CLASSES, ideal_features, of_classes
from ufm.runs.compared import compared_run
from ufm.runs.exact_claims import solver_claim
from ufm.runs.record import PLANAR, RunRecord, SolveRecord, TheoryCurve, mode_words, write_record
from ufm.runs.verification import Verification, verify

_NUM_CLASSES = 10
# Folder of the network that fits its mixed labels, within the demo's.
FITTED = "fitted"
# Pictures that are kept as files beside the report; the page has them all.
_SAVED = ("planar", "channel", "confidence")
_LAMBDA_GRID = np.linspace(0.01, 0.99, 99)


_FITTED = TrainConfig(
    train_samples=20 * _NUM_CLASSES,
    network=NetworkConfig("mlp", width=512),
    optimiser=OptimiserConfig(learning_rate=0.2, weight_decay=1e-3, schedule="onecycle"),
    epochs=8,
    epoch_steps=1000,
    batch_size=256,
    measure_every=1000,
)


@dataclass(frozen=True)
class DemoConfig:
    """What the demo runs."""

    out: str = "runs/demo"
    """folder for the report, the results, the pictures and the checkpoint"""
    weight_decay: float = 2e-3
    """lambda_W of the theory's and the solver's UFM, expectation convention"""
    feature_decay: float = 2e-3
    """lambda_H of the theory's and the solver's UFM, expectation convention"""
    dim: int = 16
    """feature dimension of that UFM"""
    nodes: int = 9
    """Gauss-Jacobi nodes in lambda, per class pair"""
    samples: int = 11_520
    """mixed training images that are recorded"""
    fitted: TrainConfig = field(default_factory=lambda: _FITTED)
    """how the network that fits its mixed labels is trained"""
    train: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=150, measure_every=10))
    """how the other one is"""

    def __post_init__(self) -> None:
        """Raise ValueError for a number out of range, before anything runs."""
        for name in ("weight_decay", "feature_decay"):
            check_number(name, getattr(self, name), above=0)
        for name in ("nodes", "samples"):
            check_integer(name, getattr(self, name), minimum=1)
        check_integer("dim", self.dim, minimum=_NUM_CLASSES - 1)
        for name in ("fitted", "train"):
            given: TrainConfig = getattr(self, name)
            if given.data != "digits" or given.mixing.kind != "mixup":
                raise ValueError(
                    f"{name}: got {given.mixing.kind} on {given.data}, expected mixup on digits; "
                    "see experiments.train and experiments.compare for other runs"
                )


def main() -> int:
    """Run the demo from the command line and return its exit status."""
    # So small a network gains little from a second thread, and loses much where the threads have to share their cores.
    torch.set_num_threads(1)
    return guarded(
        lambda: run(tyro.cli(DemoConfig, prog="python -m experiments.demo", description=__doc__)),
        "experiments.demo",
        "interrupted; the same command goes on from the last finished epoch",
    )


def run(config: DemoConfig, *, progress: bool = True) -> int:
    """Run the demo, write everything to `config.out`, and return the exit status."""
    out, begin = Path(config.out), time.perf_counter()
    make_folder(out)
    law = config.train.law(_NUM_CLASSES)

    print("1/5  theory and direct solver: gradient descent and L-BFGS, classifier fixed and free")
    verification = verify(law, config.dim, config.weight_decay, config.feature_decay, nodes=config.nodes)
    solves = _solves(verification)
    print_solves(solves)

    # An older run's report must not stand beside new numbers, whenever this run is killed.
    folders = {"fitted": out / FITTED, "train": out}
    for folder in folders.values():
        for name in ("report.html", PLANAR):
            (folder / name).unlink(missing_ok=True)
    print("2/5  two networks on scikit-learn's digits with mixup: one that fits its mixed labels, one that does not")
    for name, folder in folders.items():
        settings: TrainConfig = getattr(config, name)
        train(settings, load_data(settings.data), folder, progress=progress)

    print("3/5  recording the features of mixed training images, in train and in eval mode")
    recording = Recording(samples=config.samples, modes=("train", "eval"))
    recorded = {name: _recorded(folder, recording) for name, folder in folders.items()}

    print("4/5  comparing networks, closed form and solver on the same targets")
    records = {name: _compared(trained_run(folders[name]), some, config) for name, some in recorded.items()}
    checks = {
        "fitted": [solver_claim("fitted", mode, found) for mode, found in records["fitted"].comparisons.items()],
        "train": exact_claims(verification, records["train"].comparisons),
    }
    theory = _theory(verification, config.train.mixing.alpha)
    records["train"] = replace(records["train"], theory=theory, solves=solves)

    print("5/5  figures and report")
    for name, folder in folders.items():
        write_record(replace(records[name], checks=checks[name]), folder)
        _save_planar(folder / PLANAR, recorded[name], records[name].comparison)
    # As read back from disk, so that `ufm report` on the folders makes the same page.
    made = report([read_run(folder) for folder in folders.values()], f"python -m experiments.demo --out {config.out}")
    for section, folder in zip(made.sections, folders.values(), strict=True):
        for picture in section.pictures:
            if picture.name in _SAVED:
                picture.save(folder)
    page = made.write(out / "report.html")

    fitted, other = made.sections
    print_claims("Closed form against direct solver (exact)", made.exact)
    _print_network("Theory against the network that has fitted its mixed labels", fitted)
    _print_network("Theory against the network that has not", other)
    print(f"\n{made.summary()}\nOf a network, what does not hold is a finding, not a fault of the installation.")
    print(f"Report: {page}   ({time.perf_counter() - begin:.0f} s)")
    return 1 if made.failed else 0


def _recorded(folder: Path, recording: Recording) -> dict[str, ufm.Activations]:
    return {mode: ufm.load(file) for mode, file in record_run(trained_run(folder), recording).items()}


def _compared(run: TrainedRun, activations: dict[str, ufm.Activations], config: DemoConfig) -> RunRecord:
    """Return the record of a trained run, compared with the theory."""
    data = run.data()
    configuration = {
        **run.record.configuration,
        "demo": {name: value for name, value in asdict(config).items() if name not in ("train", "fitted")},
        "versions": _versions(),
        "data": {"name": data.name, "train": len(data.train_classes), "test": len(data.test_classes)},
    }
    return compared_run(
        run.name,
        activations,
        run.config.law(_NUM_CLASSES),
        run.config.training(),
        interpolation={},
        configuration=configuration,
        history=run.history,
    )


def exact_claims(verification: Verification, comparisons: dict[str, ufm.Comparison]) -> list[Claim]:
    """Return the claims of closed form against solver, which must hold."""
    claims = verification.claims("the demo's UFM, solved from random starts")
    return claims + [solver_claim("the demo", mode, comparison) for mode, comparison in comparisons.items()]


def _theory(verification: Verification, alpha: float) -> TheoryCurve:
    """Return the closed form on a grid of lambda, for the pair (0, 1)."""
    optimum = verification.optimum
    first = torch.zeros(len(_LAMBDA_GRID), dtype=torch.long)
    labels = pair_labels(first, first + 1, torch.from_numpy(_LAMBDA_GRID), optimum.num_classes)
    response = optimum.response(labels.numpy())
    return TheoryCurve(
        **asdict(optimum),
        alpha=alpha,
        lam=_LAMBDA_GRID,
        classifier=optimum.classifier().numpy(),
        features=np.asarray(response.features),
        logits=np.asarray(response.logits),
        probabilities=np.asarray(response.probabilities),
    )


def _solves(verification: Verification) -> list[SolveRecord]:
    return [
        SolveRecord(
            classifier=kind,
            method=method,
            message=str(solution.message),
            iterations=solution.iterations,
            seconds=solution.seconds,
            certificate=solution.certificate,
            logit_error=verification.logit_errors[kind, method],
            excess=solution.objective - float(verification.optimum.objective),
        )
        for (kind, method), solution in verification.solutions.items()
    ]


def _save_planar(path: Path, activations: dict[str, ufm.Activations], comparison: ufm.Comparison) -> None:
    """Save the features of three classes in the plane of their rows, for network, closed form and solver.

    All panels show the same targets; closed form and solver use the ETF nearest to the network's classifier and the
    lambda_H that the fitted beta implies.
    """
    some = activations["eval"]
    chosen = of_classes(some, CLASSES)
    ideal = ideal_features(some, comparison, chosen)
    features = {
        "network_train": (activations["train"].classifier, activations["train"].features[chosen]),
        "network_eval": (some.classifier, some.features[chosen]),
        "solver": ideal["direct solver"],
        "closed_form": ideal["closed form"],
    }
    arrays = {name: getattr(some, name)[chosen].numpy() for name in ("class_a", "class_b", "lam")}
    for name, (classifier, h) in features.items():
        rows = classifier[list(CLASSES)].double()
        plane = ufm.classifier_plane(rows)
        arrays[f"{name}.points"] = np.asarray(plane.project(torch.as_tensor(h).double()), dtype=np.float32)
        arrays[f"{name}.rows"] = np.asarray(plane.project(rows), dtype=np.float32)
    write_tensors(path, {name: torch.from_numpy(array) for name, array in arrays.items()}, {})


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("torch", "numpy", "scipy", "scikit-learn", "matplotlib")}
    return {"ufm": ufm.__version__, "python": platform.python_version(), **packages, "machine": platform.machine()}


def print_solves(solves: list[SolveRecord]) -> None:
    """Print one line per direct solve."""
    print(f"     {'classifier':<11}{'method':<18}{'objective':>19}{'gradient':>10}{'gap':>10}{'closed form':>13}")
    for solve in solves:
        found = solve.certificate
        figures = f"{found.objective:>19.15f}{found.gradient_norm:>10.1e}{found.gap:>10.1e}{solve.logit_error:>13.1e}"
        print(f"     {solve.classifier:<11}{solve.method:<18}{figures}")


def _print_network(title: str, section: Section) -> None:
    """Print a network's claims, what it follows with nothing fitted, and by which law it departs."""
    print_claims(title, section.claims + section.others)
    comparison = section.run.comparison
    scores = {score.name: score.r2 for score in comparison.scores}
    names = ("fit-free", "closed form", "straight line")
    r2 = ", ".join(f"{name} {scores[name]:.3f}" for name in names if name in scores)
    print(f"R² of the logits, eval mode: {r2}")
    if comparison.departure is not None:
        print(f"Departure: {comparison.departure.words()}")


def print_claims(title: str, claims: list[Claim]) -> None:
    """Print one verdict line per claim."""
    names = [claim.name if claim.mode is None else f"{mode_words(claim.mode)}: {claim.name}" for claim in claims]
    width = max(map(len, names), default=0)
    print(f"\n{title}\n{'verdict':<8} {'claim':<{width}}  {'measured':>10}    threshold")
    for name, claim in zip(names, claims, strict=True):
        verdict = {True: "PASS", False: "FAIL", None: "-"}[claim.passed]
        measured = "-" if claim.measured is None else f"{claim.measured:.3g}"
        print(f"{verdict:<8} {name:<{width}}  {measured:>10} {claim.relation} {claim.threshold:g}")


if __name__ == "__main__":
    sys.exit(main())
