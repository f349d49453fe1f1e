"""Facts about a training run: a layer that is silent from the start, found by the standard library and a rule of one's own.

Needs: pip install 'morphogen[broker,torch,knowledge]'
"""

import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

import morphogen

MODULE = Path(__file__).parent / "knowledge" / "training.mk"

torch.manual_seed(0)
torch.set_num_threads(1)
inputs = torch.randn(512, 16)
targets = inputs[:, :10].argmax(dim=1)
model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10))
with torch.no_grad():
    model[2].bias.fill_(-20.0)  # none of its units ever fires
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

with morphogen.record("silent") as run:
    run.watch(model, optimizer)
    for step in range(1, 121):
        chosen = torch.randint(0, len(inputs), (64,))
        optimizer.zero_grad()
        scores = model(inputs[chosen])
        loss = nn.functional.cross_entropy(scores, targets[chosen])
        loss.backward()
        optimizer.step()
        run.log(loss=loss, accuracy=(scores.argmax(dim=1) == targets[chosen]).float().mean(), step=step)


def tell(*command: str) -> None:
    """Run `morphogen ...`, as on a terminal."""
    status = subprocess.call([sys.executable, "-m", "morphogen.cli", *command])
    if status:
        sys.exit(status)  # it has said why


tell("know", "load", str(MODULE))  # loads std.training as well, which it uses
tell("facts", "--run", "silent", "--json")
print(
    morphogen.query(
        "SELECT system, name, step FROM rules_fired WHERE run = 'silent' AND attempt = 1 ORDER BY step, name", wait=True
    )
)
