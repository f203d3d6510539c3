"""A torch model, and a loader that yields mixed inputs with soft labels (N, K), as mixup collates do."""

from toy import DECAY, mixed_loader, trained_model

import ufm

model, loader = trained_model(), mixed_loader()

comparison = ufm.compare(ufm.record(model, loader), weight_decay=DECAY)
print(comparison)
