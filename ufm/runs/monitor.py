"""A network watched while it trains: measures of every epoch, a record that `ufm report` draws, at a capped cost."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from numbers import Real
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from ufm._support.arrays import Array, check_integer, check_number
from ufm._support.files import make_folder
from ufm.labels.laws import Law, Unmixed, check_law
from ufm.losses import get_loss
from ufm.networks.activations import Activations
from ufm.networks.calibration import measure_calibration
from ufm.networks.comparison_result import Comparison
from ufm.networks.recording import check_head, record
from ufm.networks.temperature import calibrate
from ufm.runs.compared import compared_run, training_of
from ufm.runs.record import METRICS, RECORD, SAMPLES, CalibrationRecord, RunRecord, write_history, write_record
from ufm.theory.calibration import law_calibration

# Names in loggers start so.
_PREFIX = "ufm/"
# So many seconds of measuring are free, so that a short training is watched too.
_FREE = 5.0
# Figures of an epoch on their way to a logger.
Sink = Callable[[Mapping[str, float], int], Any]


class Monitor:
    """Watch a network in training: neural collapse, channel, distance from the theory and calibration, epoch by epoch.

    Parameters
    ----------
    model : nn.Module
        The network. It is left as it was, and so are random generators, a DataLoader's own too; see `record`.
    loader : iterable
        Of batches as it is trained on, (inputs, labels), mixed; iterated anew for each measurement.
    out : str or Path
        Folder of the record, made if it is not there: run.json, metrics.jsonl and the last recorded samples.
    every : int
        Measure after every so many epochs.
    share : float
        The most of the time since the start that measuring may take, in (0, 1), or 5 seconds if that is more: an epoch
        that would go beyond is not measured. The first measurement, whose cost is not known yet, and the last are
        always made.
    samples : int
        Samples that are recorded for a measurement.
    test : iterable, optional
        Of batches (inputs, classes), not mixed, for accuracy and calibration; as many samples of it.
    weight_decay : float, optional
        lambda_W of the classifier in the expectation convention, > 0; with it the fit-free beta and the certificate.
    law : Law, optional
        Of the training labels; by default that of the recorded ones.
    loss : str
        That the network is trained with.
    classifier, bias, features : optional
        As in `record`, for a head that cannot be told from what the model returns.
    logger : optional
        Where measures go beside the record: a TensorBoard SummaryWriter, a Weights & Biases run, a Lightning logger, or
        a function of a dict and the epoch. By default the Weights & Biases run that is under way, if there is one.
    overwrite : bool
        Whether a record that is in the folder already may be replaced.

    Raises
    ------
    ValueError
        For an argument that does not fit, naming it.

    Notes
    -----
    In several processes the first one measures, and the others go on; the model has to be whole in it.

    Examples
    --------
    >>> import tempfile, torch, ufm
    >>> model = torch.nn.Linear(4, 3)
    >>> batches = [(torch.rand(60, 4), torch.rand(60, 3).softmax(1))]
    >>> with ufm.Monitor(model, batches, out=tempfile.mkdtemp()) as monitor:
    ...     for epoch in range(2):
    ...         row = monitor.step(loss=1.0)
    >>> row["epoch"], len(monitor.history)
    (1, 2)
    """

    def __init__(
        self,
        model: nn.Module,
        loader: Iterable[Any],
        *,
        out: str | Path,
        every: int = 1,
        share: float = 0.1,
        samples: int = 2000,
        test: Iterable[Any] | None = None,
        weight_decay: float | None = None,
        law: Law | None = None,
        loss: str = "cross_entropy",
        classifier: str | nn.Module | Array | Callable[[], Tensor] | None = None,
        bias: Array | None = None,
        features: str | Callable[[Any], Tensor] | None = None,
        logger: Any = None,
        overwrite: bool = False,
    ) -> None:
        """Check the arguments and make the folder; the clock starts."""
        self.model, self.loader, self.test = model, loader, test
        for name, value in (("loader", loader), ("test", test)):
            if isinstance(value, Iterator):
                raise ValueError(f"{name}: got an iterator, which ends with the first epoch, expected a loader or list")
        self.every = check_integer("every", every, minimum=1)
        self.share = check_number("share", share, above=0, below=1)
        self.samples = check_integer("samples", samples, minimum=2)
        self.weight_decay = None if weight_decay is None else check_number("weight_decay", weight_decay, above=0)
        self.law, self.loss = None if law is None else check_law(law), get_loss(loss).name
        self._head = {"classifier": classifier, "bias": bias, "features": features}
        check_head(model, **self._head)
        self._sink = _sink(logger)
        self.folder = Path(out)
        if (self.folder / RECORD).exists() and not overwrite:
            raise ValueError(
                f"out: got {str(out)!r}, which holds a run already, expected another folder or overwrite=True"
            )
        make_folder(self.folder)
        for name in (RECORD, METRICS, SAMPLES):
            (self.folder / name).unlink(missing_ok=True)
        #: Figures by epoch so far, one dict each.
        self.history: list[dict[str, Any]] = []
        #: The record as last written; None before the first measurement.
        self.record: RunRecord | None = None
        self._start = self._last = time.perf_counter()
        self._spent = self._cost = 0.0

    @property
    def cost(self) -> float:
        """The share of the time since the start that measuring took."""
        return self._spent / (time.perf_counter() - self._start)

    def step(self, **values: float | Tensor) -> dict[str, Any]:
        """End an epoch: measure if it is due and the cost allows it, and return the epoch's figures.

        Parameters
        ----------
        **values
            Figures of one's own to keep with the epoch, such as the training loss.

        Returns
        -------
        dict
            epoch, seconds (without measuring), the values given, and where it was measured: nc1, nc2, nc3, etf_error,
            excess_loss, unexplained and unexplained_line (1 - R^2 of the logits by the closed form and by a straight
            line), beta, width_ratio (the channel's width over the theory's where lambda > .9), with a weight decay
            beta_fit_free and gap, with test inputs test_accuracy and ece. A figure that does not exist is None.
        """
        now = time.perf_counter()
        row: dict[str, Any] = {"epoch": len(self.history), "seconds": now - self._last}
        row |= {name: _number(name, value) for name, value in values.items()}
        self.history.append(row)
        due = len(self.history) % self.every == 0
        allowed = self._spent + self._cost <= max(self.share * (now - self._start), _FREE)
        if _first_process():
            if due and (allowed or self.record is None):
                row |= self._measure()
                self._sink({f"{_PREFIX}{name}": x for name, x in row.items() if x is not None}, row["epoch"])
            write_history(self.history, self.folder)
        self._last = time.perf_counter()
        return row

    def close(self) -> RunRecord | None:
        """Measure the network as it is now, with the direct solver and bands too, and write the record.

        Returns
        -------
        RunRecord or None
            The record; None in another process than the first.
        """
        if not _first_process():
            return None
        row = self._measure(full=True)
        if self.history:
            self.history[-1] |= row
        assert self.record is not None
        self.record = replace(self.record, history=list(self.history))
        write_record(self.record, self.folder)
        return self.record

    def attach(self, trainer: Any) -> "Monitor":
        """Have a Trainer of Lightning or of Hugging Face's transformers call `step` and `close`, and log the measures.

        Parameters
        ----------
        trainer : lightning.pytorch.Trainer or transformers.Trainer
            Before its `fit` or `train`. The figures go to its loggers.

        Returns
        -------
        Monitor
            Itself.
        """
        from ufm.runs.callbacks import attach

        self._sink = attach(trainer, self.step, self.close)
        return self

    def __enter__(self) -> "Monitor":
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close, unless the block ended with an error; what was measured before is on disk."""
        if kind is None:
            self.close()

    def _measure(self, *, full: bool = False) -> dict[str, Any]:
        begin = time.perf_counter()
        recorded = record(self.model, self.loader, max_samples=self.samples, **self._head)
        recorded.save(self.folder / SAMPLES)
        training = replace(
            training_of(self.law, recorded),
            loss=self.loss,
            classifier_decay=self.weight_decay,
            architecture=type(self.model).__name__,
            data="training inputs as loaded",
            epochs=len(self.history) or None,
        )
        run = compared_run(
            self.folder.resolve().name, {"eval": recorded}, self.law, training, history=self.history, full=full
        )
        row = _figures(run.comparison)
        if self.test is not None:
            calibration, accuracy, ece = _calibration(self._recorded_test(), run.comparison.beta)
            run = replace(run, calibration=calibration)
            row |= {"test_accuracy": accuracy, "ece": ece}
        self.record = replace(run, folder=self.folder)
        write_record(self.record, self.folder)
        self._cost = time.perf_counter() - begin
        self._spent += self._cost
        return row | {"measuring_seconds": self._cost}

    def _recorded_test(self) -> Activations:
        found = record(self.model, self.test or (), max_samples=self.samples, **self._head)
        if bool((found.decoded.classes > 1).any()):
            raise ValueError("test: got mixed labels, expected classes, or labels of one class each")
        return found


def _figures(found: Comparison) -> dict[str, Any]:
    """Return what a row of the history holds of a comparison."""
    collapse, departure, certificate = found.collapse, found.departure, found.certificate
    return {
        "nc1": collapse and collapse.nc1,
        "nc2": collapse and collapse.nc2,
        "nc3": collapse and collapse.nc3,
        "etf_error": found.etf_error,
        "excess_loss": departure and departure.excess,
        "unexplained": 1 - found.score("closed form").r2,
        "unexplained_line": 1 - found.score("straight line").r2,
        "beta": found.beta,
        "beta_fit_free": found.beta_fit_free,
        "width_ratio": departure and float(departure.width_ratio[-1]),
        "gap": certificate and certificate.relative_gap,
    }


def _calibration(found: Activations, beta: float) -> tuple[CalibrationRecord, float, float]:
    """Return calibration on unmixed inputs as a record has it, accuracy and calibration error of all of them."""
    measured = measure_calibration(found.logits, found.class_a)
    predicted = law_calibration(Unmixed(len(found.classifier)), beta)
    return CalibrationRecord(calibrate(found.logits, found.class_a), predicted), measured.accuracy, measured.ece


def _number(name: str, value: Any) -> float:
    if isinstance(value, Tensor) and value.numel() == 1:
        return float(value.detach())
    if not isinstance(value, Real):
        raise ValueError(f"{name}: got {type(value).__name__}, expected a number")
    return float(value)


def _first_process() -> bool:
    distributed = torch.distributed
    return not (distributed.is_available() and distributed.is_initialized()) or distributed.get_rank() == 0


def _sink(logger: Any) -> Sink:
    """Return a function that sends figures of an epoch to a logger.

    Raises
    ------
    ValueError
        For an object of no known kind.
    """
    if logger is None:
        # Whoever has a run of Weights & Biases under way has imported it.
        run = getattr(sys.modules.get("wandb"), "run", None)
        return (lambda row, epoch: None) if run is None else _sink(run)
    if hasattr(logger, "add_scalar"):
        return lambda row, epoch: [logger.add_scalar(name, x, epoch) for name, x in row.items()]
    if hasattr(logger, "log_metrics"):
        return lambda row, epoch: logger.log_metrics(row, step=epoch)
    if hasattr(logger, "log"):
        return lambda row, epoch: logger.log(dict(row))
    if callable(logger):
        return lambda row, epoch: logger(dict(row), epoch)
    raise ValueError(
        f"logger: got {type(logger).__name__}, expected a SummaryWriter, a Weights & Biases run, a Lightning logger or "
        "a function"
    )
