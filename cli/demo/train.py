"""The demo's trainer: a real small network on scikit-learn's digits, recorded in three lines.

A program of its own, so that it can be killed: `python -m morphogen.cli.demo.train FOLDER`. It checkpoints every
100 steps and goes on from its last checkpoint, as any job on a preemptible machine would.
"""

import sys
import time
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional

import morphogen

RUN = "digits"
EPOCHS, BATCH, CHECKPOINT_EVERY = 60, 64, 100


def build() -> nn.Sequential:
    """Return a plain MLP, 64 pixels to 10 classes; its third layer begins with biases that leave many units dead."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)
    )
    with torch.no_grad():
        model.get_parameter("4.bias")[:24] = -4.0  # so that the question for dead units has an answer
    return model


def main(folder: Path) -> None:
    """Train to the end, from the last checkpoint if there is one."""
    torch.set_num_threads(1)
    pixels, labels = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(
        torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(labels), test_size=0.25, random_state=0
    )
    model = build()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    checkpoint = folder / "checkpoint.pt"
    step = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        step = saved["step"]

    run = morphogen.record(RUN, config={"epochs": EPOCHS, "batch": BATCH, "lr": 1e-3, "optimizer": "Adam"})
    run.watch(model, optimizer, every=2)

    steps_an_epoch = len(train_x) // BATCH
    order = torch.Generator()
    while step < EPOCHS * steps_an_epoch:
        began = time.perf_counter()
        epoch, within = divmod(step, steps_an_epoch)
        shuffled = torch.randperm(len(train_x), generator=order.manual_seed(epoch))
        chosen = shuffled[within * BATCH : (within + 1) * BATCH]
        step += 1

        logits = model(train_x[chosen])
        loss = functional.cross_entropy(logits, train_y[chosen])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

        trained = time.perf_counter()
        run.log(loss=loss, step=step, step_ms=(trained - began) * 1e3, samples_per_s=BATCH / (trained - began))
        recorded = time.perf_counter()
        if step % 10 == 0:
            run.log(log_us=(recorded - trained) * 1e6, step=step)
        if within == steps_an_epoch - 1:
            with torch.no_grad():
                accuracy = (model(test_x).argmax(1) == test_y).float().mean()
            run.log(test_accuracy=accuracy, epoch=epoch, step=step)
        if step % CHECKPOINT_EVERY == 0:
            part = checkpoint.with_suffix(".part")
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, part)
            part.replace(checkpoint)
    run.finish()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
