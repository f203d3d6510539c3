"""The folder of a training run, read back: configuration, figures, and the trained network."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.data import ImageData, load_data
from experiments.networks import Network, build_network
from experiments.training.checkpoint import NAME, load_network
from experiments.training.config import TrainConfig, from_plain


@dataclass(frozen=True)
class TrainedRun:
    """A run's folder, configuration, and figures of each epoch so far."""

    folder: Path
    config: TrainConfig
    history: list[dict[str, Any]]

    @property
    def name(self) -> str:
        """What the run is called: its folder's name."""
        return self.folder.name

    @property
    def complete(self) -> bool:
        """Whether the last epoch is done."""
        return len(self.history) == self.config.epochs

    def data(self) -> ImageData:
        """Return the data set, cut to the images that the network was trained on."""
        return self.config.cut(load_data(self.config.data))

    def network(self, data: ImageData) -> Network:
        """Return the network of the last checkpoint, on the CPU, in evaluation mode."""
        channels, height, width = data.train_images.shape[1:]
        network = build_network(self.config.network, (channels, height, width), data.num_classes)
        load_network(self.folder / NAME, network)
        return network.eval()


def read_run(folder: str | Path) -> TrainedRun:
    """Return the run kept in `folder`; raise ValueError if there is none or its files are damaged."""
    path = Path(folder)
    try:
        config = from_plain(json.loads((path / "config.json").read_text(encoding="utf-8"))["config"])
        lines = (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return TrainedRun(path, config, [json.loads(line) for line in lines])
    except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"run: got {str(path)!r}, expected the folder of a training run ({error!r})") from error
