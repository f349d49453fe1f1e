"""The event that ends every run of the experiment: how the network did on the test part, read once."""

from morphogen import Event


class Judged(Event, type="experiment.judged", version=1):
    """A run of the experiment ended and its test part was read.

    `setting` names everything that the run depends on; runs of another setting are other experiments. `split` and
    `host_weights` are hashes: of the rows of each part, and of the host's own parameters as they ended.
    """

    host: str
    arm: str
    seed: int
    setting: str
    split: str
    epochs: int
    validation_loss: float
    validation_accuracy: float
    test_loss: float
    test_accuracy: float
    host_params: int
    params: int
    host_weights: str
    seconds: float  # of wall time, from the first batch to the last
