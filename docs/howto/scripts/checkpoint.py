"""A checkpoint on disk: its weights, and nothing else in it, go into the model, which is then recorded to a file."""

import torch
from toy import mixed_loader, trained_model, untrained_model

import ufm

torch.save(trained_model().state_dict(), "checkpoint.pt")  # the checkpoint that you have

model = untrained_model()
model.load_state_dict(torch.load("checkpoint.pt", weights_only=True))  # runs no code that is in the file
activations = ufm.record(model, mixed_loader(), out="activations.safetensors")
print(ufm.compare(activations, solver=False).beta)
