"""Train as the command line does, and die without a word in a given batch, whose number is the first argument."""

import os
import signal
import sys

from experiments import train
from experiments.training import loop

batches, original = int(sys.argv.pop(1)), loop.soft_loss
calls = 0


def soft_loss(*arguments):
    global calls
    calls += 1
    if calls == batches:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments)


loop.soft_loss = soft_loss
sys.exit(train.main())
