"""Label smoothing on top of mixup: the labels say so by themselves."""

from toy import DECAY, K, mixed_loader, trained_model

import ufm


class Smoothed:
    """Batches of a loader with label smoothing .1, as many libraries put it on top."""

    def __iter__(self):
        """Yield inputs and smoothed labels."""
        for x, y in mixed_loader():
            yield x, 0.9 * y + 0.1 / K


model = trained_model(Smoothed())  # pyright: ignore[reportArgumentType]
activations = ufm.record(model, Smoothed())
print(ufm.summarise_labels(activations.labels).words())
print(ufm.compare(activations, weight_decay=DECAY).score("fit-free").r2)
