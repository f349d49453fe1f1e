"""A network too narrow for its data stalls, grows while it trains, and the log tells what grew and whether it helped.

Needs: pip install 'morphogen[broker,adapt]' scikit-learn
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

import morphogen

images, labels = map(torch.as_tensor, load_digits(return_X_y=True))
images, rows = images.float() / 16, torch.randperm(len(labels), generator=torch.manual_seed(0))
train, held = rows[:1300], rows[1300:]
model = nn.Sequential(nn.Linear(64, 2), nn.Tanh(), nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)


def validate(model: nn.Module) -> tuple[float, float]:
    """Return loss and accuracy on the digits that training does not see."""
    scores = model(images[held])
    return float(cross_entropy(scores, labels[held])), float((scores.argmax(1) == labels[held]).float().mean())


with morphogen.record("grow") as run:
    run.watch(model, optimizer, every=21)
    grower = morphogen.grow(run, model, optimizer, evaluate=validate, config={"plateau_threshold": 0.05})
    for _ in range(60):
        for batch in train[torch.randperm(len(train))].split(64):
            optimizer.zero_grad()
            loss = cross_entropy(model(images[batch]), labels[batch])
            loss.backward()
            optimizer.step()
            run.log(loss=loss.detach())
        grower.epoch()
    grower.finish()

grown = "SELECT epoch, slot, blueprint, helped, contribution FROM decisions WHERE op = 'germinate' AND executed"
print(morphogen.query(f"{grown} AND run = 'grow' ORDER BY attempt DESC, epoch", wait=True))
curve = "SELECT epoch + 1 AS epoch, val_accuracy, params_total FROM epochs WHERE run = 'grow' AND epoch % 10 = 9"
print(morphogen.query(f"{curve} ORDER BY attempt DESC, epoch LIMIT 6"))
