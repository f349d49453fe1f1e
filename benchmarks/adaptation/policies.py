"""Policies that only the experiment needs: the sham graft, and what a trained bandit thinks best."""

from morphogen.consumers.policy import Observation, Outcome, Proposal, load_checkpoint


class Sham:
    """Germinates the blueprint of the most parameters as soon as it may, and lets it train unheard: alpha stays 0."""

    name = "sham"
    version = None

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def decide(self, observation: Observation) -> Proposal:
        """Germinate once, then bring the seed into training, where the network's output is that of the host alone."""
        for slot in observation.slots:
            advance = observation.index("advance", slot)
            if advance is not None and observation.stage(slot) == "germinated":
                return Proposal(advance, reason="a sham trains, and has no say")
        sown = any(observation.value("germinated", slot) for slot in observation.slots)
        seeds = [at for at in observation.choices if observation.actions[at].op == "germinate"]
        if sown or not seeds:
            return Proposal(0, reason="the sham stands already" if sown else "nothing may be germinated")
        return Proposal(max(seeds, key=lambda at: observation.params[at]), reason="a sham")

    def learn(self, outcome: Outcome) -> None:
        """Learn nothing."""


def best_arms(checkpoint: str) -> list[tuple[str, str]]:
    """Return (site, blueprint) of a trained bandit's arms that paid in the mean, the best first."""
    state = load_checkpoint(checkpoint).state
    means = {name: total / pulls for name, (pulls, total, _) in state["arms"].items() if pulls and total > 0}
    ranked = sorted(means, key=lambda name: (-means[name], name))
    return [(site, blueprint) for site, _, blueprint in (name.rpartition("|") for name in ranked)]
