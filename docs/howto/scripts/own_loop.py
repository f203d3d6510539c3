"""A training loop of one's own, watched epoch by epoch; then `ufm report runs/mine` draws it."""

from toy import DECAY, mixed_loader, optimiser_of, train_epoch, unmixed_loader, untrained_model

import ufm

model, loader = untrained_model(), mixed_loader()
optimiser = optimiser_of(model)

monitor = ufm.Monitor(model, loader, out="runs/mine", test=unmixed_loader(), weight_decay=DECAY)
for epoch in range(15):
    loss = train_epoch(model, optimiser, loader)
    row = monitor.step(loss=loss)
    print(f"epoch {epoch}: excess loss {row.get('excess_loss')}")
monitor.close()
