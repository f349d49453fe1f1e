"""`policy_state`: one row a policy: how far it has learned, what it decided, and what came of it."""

from collections.abc import Iterable
from typing import Any

from ..fold.batch import Entry
from ..projection import Projection
from .bounds import int64

_SCORE = """
    count(*) AS decisions, count(*) FILTER (op <> 'wait') AS proposed, count(*) FILTER (op <> 'wait' AND approved) AS approved,
    count(*) FILTER (op <> 'wait' AND executed) AS executed, count(*) FILTER (op = 'germinate' AND executed) AS germinated,
    count(contribution) FILTER (op = 'germinate') AS measured, count(*) FILTER (op = 'germinate' AND helped) AS helped,
    avg(contribution) FILTER (op = 'germinate') AS contribution, avg(accuracy_gain) FILTER (op = 'germinate') AS accuracy_gain,
    avg(reward) FILTER (op = 'germinate') AS reward, quantile_cont(latency_ns, 0.99) AS latency_p99_ns
"""


class Policies(Projection, name="policies", version=1, types=("policy.updated",)):
    """Each step of a policy's learning; and, over decisions and outcomes, what each policy, version and arm is worth.

    What came of a seed is counted once, at the decision that germinated it; `measured`, `helped`, `contribution`,
    `accuracy_gain` and `reward` are over those.
    """

    tables = {
        "policy_updates": "policy VARCHAR, policy_version VARCHAR, previous VARCHAR, samples BIGINT, experiences BIGINT, "
        "measured VARIANT, checkpoint VARCHAR"
    }
    views = {
        "policy_state": f"""
            WITH learned AS (
                SELECT policy, last(policy_version ORDER BY seq, idx) AS policy_version, count(*) AS updates,
                       last(experiences ORDER BY seq, idx) AS experiences, last(checkpoint ORDER BY seq, idx) AS checkpoint,
                       last(measured ORDER BY seq, idx) AS learning, last(run ORDER BY seq, idx) AS learned_in,
                       last(time ORDER BY seq, idx) AS updated
                FROM policy_updates GROUP BY policy
            ), decided AS (
                SELECT policy, last(policy_version ORDER BY seq, idx) AS policy_version, count(DISTINCT run) AS runs,
                       {_SCORE}, max(time) AS decided
                FROM decisions GROUP BY policy
            )
            SELECT coalesce(l.policy, d.policy) AS policy, coalesce(l.policy_version, d.policy_version) AS policy_version,
                   coalesce(l.updates, 0) AS updates, l.experiences, coalesce(d.runs, 0) AS runs,
                   coalesce(d.decisions, 0) AS decisions, coalesce(d.proposed, 0) AS proposed,
                   coalesce(d.approved, 0) AS approved, coalesce(d.executed, 0) AS executed,
                   coalesce(d.germinated, 0) AS germinated, coalesce(d.measured, 0) AS measured, coalesce(d.helped, 0) AS helped, d.contribution, d.accuracy_gain,
                   d.reward, d.latency_p99_ns, l.checkpoint, l.learning, l.learned_in, l.updated, d.decided
            FROM learned l FULL JOIN decided d USING (policy)
        """,
        "policy_versions": f"""
            SELECT policy, policy_version, count(DISTINCT run) AS runs, {_SCORE}, min(time) AS first_decided,
                   max(time) AS decided
            FROM decisions GROUP BY policy, policy_version
        """,
        "policy_arms": """
            SELECT policy, site, blueprint, count(*) AS tries, count(contribution) AS measured,
                   count(*) FILTER (helped) AS helped, avg(contribution) AS contribution, avg(accuracy_gain) AS accuracy_gain,
                   avg(reward) AS reward, stddev_samp(reward) AS reward_deviation, max(time) AS decided
            FROM decisions WHERE op = 'germinate' AND executed GROUP BY policy, site, blueprint
        """,
    }

    def rows(self, event: Entry) -> Iterable[tuple[Any, ...]]:
        """Yield one row."""
        body = event.body
        yield (
            body.policy, body.policy_version, body.previous, int64(body.samples), int64(body.experiences), body.measured,
            body.checkpoint,
        )  # fmt: skip
