"""A training run, read back from its folder: configuration, figures, and the trained network."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.data import ImageData, load_data
from experiments.networks import Network, build_network
from experiments.training.checkpoint import NAME, load_network
from experiments.training.config import TrainConfig, from_plain
from ufm.runs.record import RunRecord, read_record


@dataclass(frozen=True)
class TrainedRun:
    """A run's record, its folder, and the configuration that it was trained with."""

    record: RunRecord
    folder: Path
    config: TrainConfig

    @property
    def name(self) -> str:
        """What the run is called: its folder's name."""
        return self.folder.name

    @property
    def history(self) -> list[dict[str, Any]]:
        """The figures of each epoch so far."""
        return list(self.record.history)

    @property
    def complete(self) -> bool:
        """Whether the last epoch is done."""
        return len(self.record.history) == self.config.epochs

    def check_complete(self) -> None:
        """Raise ValueError if the last epoch is not done."""
        if not self.complete:
            raise ValueError(f"run: got {self.name!r} after {len(self.history)} of {self.config.epochs} epochs")

    def data(self) -> ImageData:
        """Return the data set, cut to the images that the network was trained on."""
        return self.config.cut(load_data(self.config.data))

    def network(self, data: ImageData) -> Network:
        """Return the network of the last checkpoint, on the CPU, in evaluation mode."""
        channels, height, width = data.train_images.shape[1:]
        network = build_network(self.config.network, (channels, height, width), data.num_classes)
        load_network(self.folder / NAME, network)
        return network.eval()


def trained_run(folder: str | Path) -> TrainedRun:
    """Return the run kept in `folder`; raise ValueError if there is none or its files are damaged."""
    path = Path(folder)
    try:
        record = read_record(path)
        return TrainedRun(record, path, from_plain(record.configuration.get("config")))
    except ValueError as error:
        raise ValueError(f"run: got {str(path)!r}, expected the folder of a training run ({error})") from error
