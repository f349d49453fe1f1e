"""Every (type, version) ever shipped still decodes, and no schema changes without a bump.

`tests/golden/` holds one body of each in hex, and the fingerprint of each class. Run this file as a program to add
what is new; it never rewrites what is there.
"""

import enum
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from morphogen.schemas import (
    Action,
    AdaptationFinished,
    AdaptationStarted,
    AlertRaised,
    ArtifactQuarantined,
    ArtifactSaved,
    BlueprintMeasured,
    BlueprintProposed,
    BreakerChanged,
    Carried,
    CommandAccepted,
    CommandFinished,
    CommandIssued,
    CrystalChecked,
    CrystalDrafted,
    CrystalFailed,
    CrystalInvoked,
    CrystalMoved,
    CrystalRegistered,
    CrystalRequested,
    CrystalShadowed,
    DeadLetter,
    DeadResolved,
    DecisionOutcome,
    DecisionProposed,
    DecisionVerdict,
    DispatchDecided,
    DispatchFellBack,
    DispatchFinished,
    EpochMeasured,
    Event,
    ExecutionFeedback,
    ExecutionFinished,
    ExecutionStarted,
    ExecutionStep,
    FactBecameFalse,
    FactBecameTrue,
    GoalEmbedded,
    GuardResult,
    HintSuggested,
    HostRestored,
    KnowledgeDropped,
    KnowledgeLoaded,
    LayerHealth,
    LlmBudgetExceeded,
    LlmQueried,
    LogLine,
    LoopAnswered,
    LoopAssigned,
    LoopCheckpoint,
    LoopDecided,
    LoopFinished,
    LoopGrounded,
    LoopHandled,
    LoopRecorded,
    LoopResumed,
    LoopRuleFired,
    LoopStarted,
    LoopSuspended,
    LoopVerdict,
    LoopViolated,
    Metrics,
    Names,
    Observed,
    PolicyUpdated,
    ProducerClosed,
    ProducerDropped,
    ProgramImproved,
    RuleAdvice,
    RuleFired,
    RunFailed,
    RunFinished,
    RunStarted,
    Signal,
    SiteInfo,
    SlotAlphaChanged,
    SlotContribution,
    SlotFailed,
    SlotGate,
    SlotGerminated,
    SlotHealth,
    SlotRefused,
    SlotStageChanged,
    StepFinished,
    StepStarted,
    SweepBest,
    SweepFinished,
    SweepStarted,
    TrialFinished,
    TrialStarted,
    Unknown,
    Vector,
    changed,
    decode_event,
    event_classes,
    fingerprint,
    shape,
)
from morphogen.schemas.crystals import CrystalAsked, Guard, Parameter
from morphogen.schemas.dispatch import Alternative, DispatchCompared
from morphogen.schemas.kv import (
    Fingerprint,
    KvAccepted,
    KvBlocksCleared,
    KvBlocksRemoved,
    KvBlocksStored,
    KvDecided,
    KvEvicted,
    KvExported,
    KvGap,
    KvImported,
    KvOffered,
    KvRef,
    KvRejected,
    KvReleased,
    Lora,
    SessionLoaded,
    SessionSaved,
    SessionTurn,
)

GOLDEN = Path(__file__).parent.parent / "golden"
BODIES, LOCK = GOLDEN / "bodies.json", GOLDEN / "fingerprints.json"

SAMPLES: list[Event] = [
    AdaptationFinished(
        epochs=100,
        germinated=3,
        fossilized=2,
        pruned=1,
        contributing=2,
        params_grown=4580,
        rollbacks=1,
        measured={"test_accuracy": 0.85, "nan": float("inf")},
    ),
    AdaptationStarted(
        sites=[
            SiteInfo(site="fc1", kind="features", in_shape=[64], out_shape=[2], slots=1, params=130),
            SiteInfo(site="head", kind="features", in_shape=None, out_shape=None, slots=2, params=30),
        ],
        policy="bandit",
        policy_version="ab" * 32,
        config={"every": 2, "budget": {"params": None}},
        seed=7,
        host_params=166,
        label="bandit",
    ),
    AlertRaised(severity="critical", subject="fc1#0", message="höi", evidence={"failures": 3, "loss": None}),
    ArtifactQuarantined(blueprint="ab" * 32, reason="nonfinite", failures=3),
    BlueprintMeasured(
        blueprint="ab" * 32,
        built=True,
        request="r1",
        params=1088,
        flops=2176,
        latency_ns=41_000,
        batch=64,
    ),
    BlueprintProposed(
        request="r1",
        site="fc1",
        rank=1,
        blueprint="ab" * 32,
        name="mlp16",
        spec=b"\x81\x00",
        origin="search",
        params=1088,
        flops=2176,
        latency_ns=40_000,
        gain=0.25,
        parents=["cd" * 32],
    ),
    BreakerChanged(name="load", from_state="closed", to_state="open", failures=5),
    DecisionOutcome(
        decision="d1",
        slot="fc1#0",
        seed="fc1#0.1",
        blueprint="mlp16",
        stage="fossilized",
        epochs=12,
        contribution=0.125,
        accuracy_gain=0.0625,
        params=1088,
        reward=0.75,
        terms={"gain": 1.0, "rent": -0.25},
    ),
    DecisionProposed(
        decision="d1",
        epoch=4,
        policy="bandit",
        observation="ab" * 32,
        action=Action(op="germinate", slot="fc1#0", blueprint="mlp16"),
        index=2,
        policy_version="cd" * 32,
        logprob=-0.5,
        value=0.25,
        entropy=1.5,
        uncertainty=0.125,
        confidence=0.75,
        reason="plateau",
        scores=[0.0, 0.5, 1.0],
        latency_ns=900_000,
    ),
    DecisionVerdict(
        decision="d1",
        approved=False,
        guards=[
            GuardResult(guard="budget", passed=False, reason="1,088 weights are over 1,000"),
            GuardResult(guard="cooldown", passed=True),
        ],
        blocked_by="budget",
    ),
    EpochMeasured(
        epoch=4,
        train_loss=0.5,
        val_loss=0.75,
        val_accuracy=0.625,
        params_total=1254,
        params_grown=1088,
        learning_rate=0.01,
        plateau=True,
        n=337,
    ),
    HostRestored(
        reason="nonfinite",
        snapshot_step=40,
        loss=float("inf"),
        threshold=12.0,
        slots=["fc1#0"],
        decision="d1",
    ),
    Observed(
        observation="ab" * 32,
        epoch=4,
        nodes=Names(["", "fc1", "fc1#0"]),
        kinds=Names(["global", "layer", "slot"]),
        feature_names=Names(["val_loss", "alpha"]),
        features=np.array([0.5, np.nan, np.nan, np.nan, np.nan, 0], np.float32),
        edges=[1, 2],
        actions=[Action(op="wait"), Action(op="set_alpha", slot="fc1#0", alpha=0.5, ramp="cosine", steps=9)],
        legal=[True, False],
        params=[0, 0],
    ),
    PolicyUpdated(
        policy="gnn-ppo",
        policy_version="ab" * 32,
        previous=None,
        samples=64,
        experiences=640,
        measured={"policy_loss": -0.25, "approx_kl": 0.0},
        checkpoint="file:///tmp/p.safetensors",
    ),
    SessionLoaded(
        session="chat",
        revision=12,
        turns=3,
        tokens=140,
        restored=128,
        recomputed=12,
        worker="b",
        pending=True,
        duration_ns=3_000_000,
    ),
    SessionSaved(
        session="chat",
        revision=12,
        turns=3,
        tokens=140,
        journal=KvRef(transport="disk", place="/s/chat/journal", size=900),
        ref=KvRef(transport="disk", place="/s/chat/1.kv", size=4096),
        state="s1",
        root="ab" * 32,
        worker="a",
        pending=True,
    ),
    SessionTurn(
        session="chat",
        turn=3,
        role="assistant",
        tokens=12,
        text="höi",
        finish="length",
        reused=128,
        seed=7,
        worker="a",
        duration_ns=5_000_000,
    ),
    SlotAlphaChanged(
        slot="fc1#0",
        seed="fc1#0.1",
        alpha_from=0.0,
        alpha_to=1.0,
        ramp="cosine",
        steps=48,
        blend="gate",
        decision="d2",
    ),
    SlotContribution(
        slot="fc1#0",
        seed="fc1#0.1",
        split="val",
        n=337,
        alpha=1.0,
        loss_with=0.5,
        loss_without=0.75,
        accuracy_with=0.75,
        accuracy_without=None,
    ),
    SlotFailed(
        slot="fc1#0",
        seed="fc1#0.1",
        error="nonfinite",
        message="3 of 128 are nan",
        recovery="cut",
        recovered=True,
        attempt=2,
        blueprint="ab" * 32,
    ),
    SlotGate(
        slot="fc1#0",
        seed="fc1#0.1",
        gate="G2",
        passed=False,
        checks_passed=["epochs"],
        checks_failed=["grad measured"],
        measured={"grad_ratio": None, "epochs": 3.0},
    ),
    SlotGerminated(
        slot="fc1#0",
        seed="fc1#0.1",
        blueprint="ab" * 32,
        params=1088,
        flops=2176,
        rng_seed=7,
        artifact="cd" * 32,
        decision="d1",
    ),
    SlotHealth(
        slots=Names(["fc1#0", "fc2#0"]),
        stages=["training", "blending"],
        alpha=np.array([0, 0.5], np.float32),
        grad_norm=np.array([0.5, np.nan], np.float32),
        nonfinite=np.array([0, 0], np.float32),
        epochs_in_stage=np.array([3, 1], np.float32),
        missing={"grad_norm": [1]},
    ),
    SlotRefused(slot="fc1#0", asked="fossilize", reason="holding comes first", decision="d1"),
    SlotStageChanged(
        slot="fc1#0",
        seed="fc1#0.1",
        from_stage="training",
        to_stage="blending",
        reason="G2 passed",
        initiator="gate",
        alpha=0.0,
        epochs_in_stage=3,
        decision="d2",
    ),
    ArtifactSaved(
        name="weights", uri="file:///tmp/w.safetensors", kind="model", sha256="ab" * 32, size=12, metadata={"a": 1}
    ),
    CrystalAsked(attempt="a1", number=1, prompt_sha256="ab" * 32, by="openai", reserved_microusd=90),
    CrystalChecked(
        attempt="a1",
        stage="replay",
        ok=False,
        reason="höi differs",
        evidence={"execution": "x1", "expected": [1, None]},
        tried=9,
        matched=8,
        duration_ns=5,
        layers=("seccomp", "landlock"),
    ),
    CrystalDrafted(
        attempt="a1",
        source="def run(path: str) -> int: ...",
        source_sha256="sha256:ab",
        program={"op": "call"},
        entry="run",
        params=[Parameter(name="path", type="str", seen=("a.csv", 1, None), minimum=1.0, maximum=9.5)],
        returns="int",
        capabilities=["files.read_text"],
        maker="llm",
        doubts=["constant 'EUR' seen in all 12 examples"],
        model="m-1",
        cost_microusd=7,
        duration_ns=12,
    ),
    CrystalFailed(attempt="a1", signature="g1-0123456789abcdef", stage="draft", reason="no explanation"),
    CrystalInvoked(
        tool="tool_0123456789abcdef",
        number=2,
        request="r1",
        ok=False,
        guard="precondition currency",
        error="no",
        duration_ns=12,
        cpu_ns=5,
        rss_bytes=4096,
        layers=("seccomp",),
    ),
    CrystalMoved(
        tool="tool_0123456789abcdef",
        number=2,
        was="shadow",
        now="active",
        reason="20 of 20",
        trials=20,
        successes=20,
        lower=0.88,
    ),
    CrystalRegistered(
        tool="tool_0123456789abcdef",
        number=2,
        signature="g1-0123456789abcdef",
        attempt="a1",
        source="def run(path: str) -> int: ...",
        source_sha256="sha256:ab",
        entry="run",
        params=[Parameter(name="path", type="str")],
        returns="int",
        guards=[Guard(kind="precondition", subject="currency", expected=["EUR"])],
        capabilities=["files.read_text"],
        effects=["read"],
        limits={"wall_seconds": 2.0},
        parent=1,
        signed="cd" * 32,
        key="ef" * 16,
        provenance={"executions": ["x1"]},
    ),
    CrystalRequested(
        attempt="a1",
        signature="g1-0123456789abcdef",
        tool="tool_0123456789abcdef",
        by="auto",
        maker="llm",
        made_from=["x1"],
        held_out=["x2"],
        budget_microusd=1_000_000,
    ),
    CrystalShadowed(
        tool="tool_0123456789abcdef",
        number=2,
        request="r1",
        agreed=False,
        reason="differs",
        duration_ns=5,
        served_ns=9,
    ),
    DispatchCompared(
        request="r1",
        signature="g1-0123456789abcdef",
        matched="g1-fedcba9876543210",
        mode="follower",
        method="embedding",
        agreed=False,
        reason="differs",
        similarity=0.95,
        execution="x1",
    ),
    DispatchDecided(
        request="r1",
        goal="höi",
        signature="g1-0123456789abcdef",
        mode="crystallized",
        method="exact",
        reason="likely enough",
        params={"path": "a.csv", "n": [1, None]},
        matched="g1-0123456789abcdef",
        similarity=1.0,
        confidence=0.95,
        execution="x1",
        tool="tool_0123456789abcdef",
        tool_version=2,
        alternatives=[
            Alternative(
                mode="learner", taken=False, reason="dearer", confidence=0.9, expected_microusd=7, expected_ns=12
            )
        ],
        thresholds={"follower": 0.92},
        budget_microusd=9,
        match_ns=5,
        by="host 7 1",
    ),
    DispatchFellBack(
        request="r1",
        mode="crystallized",
        to="follower",
        reason="a guard",
        guard="type path",
        refused=True,
        done=["files.write_text(path='a')"],
        execution="x1",
        duration_ns=5,
        cost_microusd=0,
    ),
    DispatchFinished(
        request="r1",
        signature="g1-0123456789abcdef",
        mode="follower",
        ok=False,
        execution="x1",
        tool="tool_0123456789abcdef",
        tool_version=2,
        error="no",
        duration_ns=5,
        cost_microusd=7,
        saved_microusd=-1,
        saved_ns=12,
    ),
    ExecutionFeedback(execution="x1", outcome="failure", judged_by="user", note="höi"),
    ExecutionFinished(
        execution="x1",
        outcome="success",
        judged_by="assertion",
        score=0.5,
        output={"sum": 1},
        output_sha256="sha256:ab",
        output_blob="ab" * 32,
        steps=2,
        duration_ns=12,
        cost_microusd=7,
        error="no",
    ),
    ExecutionStarted(
        execution="x1",
        goal="Sum höi",
        template="sum {path}",
        signature="g1-0123456789abcdef",
        norm_version=1,
        params={"path": "höi", "n": [1, None, b"x"]},
        environment={"python": "3.11"},
        environment_sha256="sha256:ab",
        mode="mixed",
        parent="x0",
        request="r1",
        budget_microusd=9,
    ),
    ExecutionStep(
        execution="x1",
        number=1,
        kind="llm",
        name="llm.query",
        args={"prompt": "why?"},
        args_sha256="sha256:ab",
        result={"1": "a", 2: float("inf")},
        result_sha256="sha256:cd",
        result_blob="cd" * 32,
        effect="read",
        ok=False,
        error="no",
        duration_ns=12,
        tokens_in=3,
        tokens_out=1,
        cost_microusd=7,
        model="m-1",
        priced_by="prices",
    ),
    GoalEmbedded(
        signature="g1-0123456789abcdef", template="sum {path}", model="m@ab", vector=np.array([1, 0.5], np.float32)
    ),
    CommandAccepted(command_id="c1", worker="w", delivery=1),
    CommandFinished(command_id="c1", worker="w", delivery=1, ok=True, result={"x": [1]}, duration=0.5),
    CommandIssued(command_id="c1", target="trainer", name="stop", args={"now": True}, issuer="me", expires=1),
    DeadLetter(
        command_id="c1", target="trainer", name="stop", reason="unknown", deliveries=5, args={"now": True}, issued=1
    ),
    DeadResolved(command_id="c1", action="retried", retried_as="c2", by="me"),
    FactBecameFalse(
        fact="is_slow",
        system="MatMul",
        key={"layer": "fc1"},
        evidence={"tflops": 11.0},
        place=[7, 2, 0],
        sha256="ab" * 32,
    ),
    FactBecameTrue(
        fact="is_slow",
        system="MatMul",
        key={"layer": None},
        evidence={"tflops": 9.0},
        place=[7, 1, 0],
        sha256="ab" * 32,
    ),
    HintSuggested(
        hint="AutoTuning", system="MatMul", evidence={"is_slow": True}, suggestion=["sweep the tile"], place=[7, 1, 0]
    ),
    KnowledgeDropped(system="MatMul", reason="superseded"),
    KnowledgeLoaded(
        name="matmul",
        path="matmul.mk",
        sha256="ab" * 32,
        text="system MatMul { }",
        systems=["MatMul"],
        used={"std.training": "system Training { }"},
    ),
    RuleAdvice(rule="Fuse", system="MatMul", conditions=["when memory bound"], actions={"apply": ["fuse loops"]}),
    RuleFired(
        rule="Fuse",
        system="MatMul",
        key={},
        evidence={"is_slow": True},
        actions={"apply": ["fuse loops"]},
        place=[7, 1, 0],
        sha256="ab" * 32,
    ),
    KvAccepted(state="s1", worker="b", source="a", transport="shared_memory", handoff="c1", session="chat"),
    KvBlocksCleared(engine="fleet-1", dialect="vllm", worker="dp0", event_id=7, details={"rank": 0}),
    KvBlocksRemoved(
        engine="fleet-1",
        dialect="vllm",
        worker="dp0",
        block_hashes=["17"],
        medium="GPU",
        event_id=6,
        hashes=b"\x01" * 16,
        details={"group_idx": 0},
    ),
    KvBlocksStored(
        engine="fleet-1",
        dialect="dynamo",
        worker="dp0",
        block_hashes=["17", "ab"],
        parent="5",
        tokens=np.arange(4, dtype="<i4"),
        block_size=2,
        lora="l",
        medium="GPU",
        model="m",
        event_id=5,
        hashes=b"\x01" * 32,
        root="r",
        details={"extra_keys": None},
    ),
    KvDecided(
        worker="a",
        choice="restore",
        tokens=3000,
        size=36_864_000,
        tier="memory",
        restore_ns=9_000_000,
        recompute_ns=411_000_000,
        bandwidth=5e9,
        overhead_ns=400_000,
        prefill_rate=7300.0,
        reason="faster",
        state="s1",
        session="chat",
    ),
    KvEvicted(
        state="s1",
        worker="a",
        from_tier="memory",
        to_tier="disk",
        size=4096,
        reason="budget",
        ref=KvRef(transport="disk", place="/kv/s1.kv", size=4096),
        session="chat",
    ),
    KvExported(
        state="s1",
        worker="a",
        tokens=128,
        size=4096,
        tier="memory",
        transport="shared_memory",
        ref=KvRef(
            transport="shared_memory",
            place="seg-1",
            size=4096,
            offset=64,
            checksum="xxh3-128:ab",
            lease="l1",
            host="h",
            expires=1_700_000_000_000_000_000,
            details={"generation": 1},
        ),
        root="ab" * 32,
        session="chat",
        fingerprint=Fingerprint(
            engine="llama.cpp",
            build="0.3.36",
            state_version=2,
            weights="ab" * 32,
            arch="llama",
            vocab="cd" * 32,
            type_k="f16",
            type_v="q8_0",
            layers=2,
            heads_kv=2,
            head_dim=16,
            v_transposed=True,
            rope={"base": 10000.0, "type": 0},
            swa={"window": None},
            loras=(Lora(sha256="ef" * 32, scale=0.5),),
            extra={"causal": True},
        ),
        model="tiny",
        block=64,
        blocks=b"\x01" * 32,
        pinned=True,
        duration_ns=1_000_000,
    ),
    KvGap(
        engine="fleet-1", dialect="vllm", worker="dp0", first=3, last=9, reason="replay has them no more", received=10
    ),
    KvImported(
        state="s1",
        worker="b",
        tokens=128,
        size=4096,
        tier="memory",
        transport="shared_memory",
        root="ab" * 32,
        source="a",
        handoff="c1",
        session="chat",
        model="tiny",
        block=64,
        blocks=b"\x01" * 32,
        duration_ns=700_000,
        first_token_ns=2_000_000,
    ),
    KvOffered(
        state="s1",
        worker="a",
        to="b",
        tokens=128,
        size=4096,
        transport="blobs",
        ref=KvRef(transport="blobs", place="ab" * 32, size=4096),
        root="ab" * 32,
        handoff="c1",
        session="chat",
        expires=1_700_000_000_000_000_000,
    ),
    KvRejected(
        state="s1",
        worker="b",
        reason="höi",
        source="a",
        handoff="c1",
        session="chat",
        field="rope.base",
        expected=10000.0,
        actual=None,
    ),
    KvReleased(state="s1", worker="a", tier="device", reason="handed_off", size=4096, session="chat"),
    LayerHealth(
        layers=Names(["fc1", "fc2"]),
        grad_norm=np.array([0.5, np.nan], np.float32),
        nonfinite=np.array([0, 3], np.float32),
        missing={"dead_share": [1]},
        dead_share=np.array([0.25, 0], np.float32),
    ),
    LlmBudgetExceeded(
        step="judge",
        backend="openai",
        prompt_sha256="ab" * 32,
        resource="tokens",
        limit=5000.0,
        spent=4800.0,
        action="suspend",
        needed=900.0,
    ),
    LlmQueried(
        step="judge",
        backend="openai",
        prompt_sha256="ab" * 32,
        prompt="höi?",
        prompt_bytes=5,
        model="m-1",
        system="be brief",
        answer_schema={"type": "object"},
        options={"temperature": 0.5},
        attempt=1,
        occurrence=2,
        reply='{"a": 1}',
        fits=False,
        error="$.b is missing",
        tokens_in=10,
        tokens_out=5,
        cost_usd_micros=7,
        reserved_tokens=300,
        reserved_usd_micros=90,
        latency_ns=12,
        retries=1,
        finish="stop",
    ),
    LoopAnswered(path="ask", sha256="ab" * 32, text="yes", text_blob=None, by="me"),
    LoopAssigned(path="more.1", name="x", value={"a": [1, None]}),
    LoopCheckpoint(seq=7, counter=9, state=b"\x80", source_type="loop.started", source=b"\x80"),
    LoopDecided(path="more.2", kind="if", value=True, reason="x > 2"),
    LoopFinished(status="failed", reason="no luck", duration_ns=5, steps=3),
    LoopGrounded(path="one", fact="S.is_slow", case="S.Perf", value=True, evidence={"tflops": 9.0}),
    LoopHandled(
        seq=7, idx=0, event_id="w.signal.1", handler="request", path="request#7.0", ok=False, error="no", duration_ns=5
    ),
    LoopRecorded(
        path="one",
        events=[
            Carried(type="metrics.scalars", version=1, time=7, step=3, body={"values": {"loss": 0.5, "bad": 1}}),
            Carried(type="log.line", version=1, time=8, body={"message": "hello"}),
        ],
    ),
    LoopResumed(
        attempt=2,
        sha256="ab" * 32,
        text="task t {}",
        used={"a.mk": "x"},
        accepted_change=True,
        workspace="/w",
        live=True,
        backend="script",
        backend_options={"file": "replies.toml"},
        host="h",
        pid=7,
    ),
    LoopRuleFired(path="one", rule="S.Fuse", apply=["fuse loops"], evidence={"tflops": 9.0}),
    LoopStarted(
        loop="t",
        kind="task",
        program="p.mk",
        sha256="ab" * 32,
        text="task t {}",
        used={"a.mk": "x"},
        text_blob="cd" * 32,
        parameters={"a": 1},
        workspace="/w",
        live=True,
        backend="suspend",
        backend_options={"reason": "x"},
        host="h",
        pid=7,
        git_commit="c",
        git_dirty=False,
    ),
    LoopSuspended(
        path="ask",
        kind="query",
        prompt="why?",
        sha256="ab" * 32,
        reason="waiting",
        system="s",
        answer_schema={"type": "object"},
    ),
    LoopVerdict(
        success=True,
        conditions=[{"condition": "x > 1", "value": True}],
        checks={"x": {"value": 2, "passed": True}},
        metrics={"x": 2.0},
    ),
    LoopViolated(path="one", invariant="S.Right", condition="t.passed", evidence={"passed": False}),
    Signal(name="request", values={"id": 1}),
    StepFinished(
        path="one",
        ok=True,
        output={"a": 1},
        variable="x",
        planned=True,
        error="e",
        duration_ns=5,
        resources={"cpu_s": 0.1},
        resolved="check",
    ),
    StepStarted(
        path="one",
        step="one",
        number=1,
        action="tool.run",
        arguments={"cmd": "true"},
        arguments_sha256="ab" * 32,
        key="cd" * 16,
        effect="external",
        policy="ask",
        attempt=2,
        plan={"argv": ["true"]},
    ),
    LogLine(message="höi", level="warning", logger="train", fields={"k": 1}),
    Metrics(values={"loss": 0.5, "step": 2**63 - 1, "bad": float("nan")}),
    ProducerClosed(produced={"metrics": 3}, dropped={"metrics": 1}),
    ProducerDropped(lane="metrics", first=1, last=9, count=9, bytes=100, reason="spool full"),
    ProgramImproved(
        program="/w/tune.mk",
        before_sha256="ab" * 32,
        after_sha256="cd" * 32,
        proposal=[{"kind": "dead_step", "title": "drop step note"}],
        evidence={"saved_seconds": 1.5, "verdict_same": True},
        accepted_by="human",
        loop="Tune",
        runs=["r1"],
        drafted_by="openai",
        diff="--- a",
        text="task T {}",
    ),
    RunFailed(error="ValueError", message="no", traceback="...", duration=1.5),
    RunFinished(duration=1.5),
    RunStarted(
        config={"lr": 0.1}, host="h", hosts=["h"], pid=1, argv=["a"], git_commit="c", git_dirty=False, world_size=2
    ),
    SweepBest(
        sweep="Tune",
        number=3,
        key="ab" * 8,
        config={"tile": 64},
        value=2.5,
        low=2.25,
        high=2.75,
        level=0.75,
        previous=1,
        speedup=5.0,
    ),
    SweepFinished(
        sweep="Tune",
        reason="budget",
        trials=9,
        measured=5,
        failed=2,
        rejected=1,
        pruned=1,
        excluded=4,
        best=3,
        config={"tile": 64},
        value=2.5,
        speedup=5.0,
        low=4.5,
        high=5.5,
    ),
    SweepStarted(
        sweep="Tune",
        parameters={"tile": [32, 64], "rate": {"low": 0.1, "high": 1.0, "log": True}},
        sampler="tpe",
        metric="Performance.speed",
        objective="maximize",
        seed=1,
        budget=9,
        repeats=3,
        warmup=1,
        workers=2,
        size=2,
        baseline={"tile": 32},
    ),
    TrialFinished(
        sweep="Tune",
        number=3,
        key="ab" * 8,
        config={"tile": 64},
        state="measured",
        value=2.5,
        values=[2.25, 2.5, 2.75],
        paired=[0.5, 0.5, 0.5],
        cost=2.0,
        seconds=1.5,
        measured=1.25,
        host="h",
    ),
    TrialStarted(sweep="Tune", number=3, key="ab" * 8, config={"tile": 64}),
]


def shipped() -> list[type[Event]]:
    return [cls for cls in event_classes() if cls.__module__.startswith("morphogen.")]


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}  # type: ignore[no-any-return]


@pytest.mark.parametrize("key", sorted(_read(BODIES)))
def test_a_body_that_was_ever_shipped_decodes(key: str) -> None:
    kind, version = key.split("@")

    event = decode_event(kind, int(version), bytes.fromhex(_read(BODIES)[key]))

    assert not isinstance(event, Unknown)


def test_every_shipped_class_has_a_golden_body_and_a_locked_fingerprint() -> None:
    keys = {f"{cls.type}@{cls.version}" for cls in shipped()}

    assert keys <= set(_read(BODIES)), "run `python tests/schemas/test_golden.py` to add the new ones"
    assert keys <= set(_read(LOCK))


def test_no_schema_changed_without_a_version_bump() -> None:
    assert changed(shipped(), _read(LOCK)) == []


def test_a_changed_field_changes_the_fingerprint() -> None:
    before = type(Event)("Changing", (Event,), {"__annotations__": {"x": int}}, type="testing.changing", version=1)
    after = type(Event)("Changing", (Event,), {"__annotations__": {"x": float}}, type="testing.changing", version=1)

    assert fingerprint(before) != fingerprint(after)
    assert changed([after], {"testing.changing@1": fingerprint(before)}) == [
        "testing.changing version 1 changed its fields: bump its version and write an upcaster"
    ]


class Point(msgspec.Struct):
    x: float


class WidePoint(msgspec.Struct):
    x: float
    y: float = float("nan")


class OtherPoint(msgspec.Struct):
    x: int


class Chain(msgspec.Struct):
    next: "Chain | None" = None


Colour = enum.Enum("Colour", {"RED": "red"})
Colours = enum.Enum("Colours", {"RED": "red", "BLUE": "blue"})


def declared(**fields: Any) -> type[Event]:
    """Return an event with these fields: each a type, or a type and a default."""
    names = {name: field if isinstance(field, tuple) else (field,) for name, field in fields.items()}
    space = {"__annotations__": {name: field[0] for name, field in names.items()}}
    space |= {name: field[1] for name, field in names.items() if len(field) > 1}
    return type(Event)("Locked", (Event,), space, type="testing.locked", version=1)  # type: ignore[return-value]


LOCKED: dict[str, Any] = {
    "x": int, "point": Point, "points": list[Point], "colour": Colour, "loss": (float | None, None), "chain": (Chain | None, None),
    "vector": (Vector | None, None),
}  # fmt: skip


@pytest.mark.parametrize(
    ("now", "fits"),
    [
        ({}, True),
        ({"new": (int, 3), "more": (list[str] | None, None)}, True),
        ({"points": list[WidePoint]}, True),  # a field with a default, further down
        ({"new": int}, False),
        ({"x": float}, False),
        ({"point": OtherPoint}, False),
        ({"points": list[OtherPoint]}, False),
        ({"colour": Colours}, False),
        ({"loss": (float | None, 0.5)}, False),
        ({"loss": float | None}, False),
        ({"vector": (list[int] | None, None)}, False),
    ],
)
def test_a_lock_sees_all_the_way_down_and_lets_new_fields_with_a_default_in(now: dict[str, Any], fits: bool) -> None:
    locked = json.loads(json.dumps({"testing.locked@1": shape(declared(**LOCKED))}))

    assert (changed([declared(**(LOCKED | now))], locked) == []) is fits


def test_a_set_as_default_is_the_same_in_each_process() -> None:
    code = (
        "import json, sys\nfrom morphogen.schemas import Event\nfrom morphogen.schemas.fingerprint import fingerprint, shape\n"
        "class Tagged(Event, type='testing.tagged', version=1):\n    tags: frozenset[str] = frozenset('abcdefgh')\n"
        "print(fingerprint(Tagged), json.dumps(shape(Tagged)))\n"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONHASHSEED": seed},
        ).stdout
        for seed in "123"
    }
    assert len(told) == 1


def test_a_field_that_is_gone_is_a_change() -> None:
    locked = {"testing.locked@1": shape(declared(**LOCKED))}

    assert changed([declared(**{name: kind for name, kind in LOCKED.items() if name != "loss"})], locked)


def test_a_golden_body_decodes_to_the_values_it_was_made_from() -> None:
    bodies = _read(BODIES)
    for sample in SAMPLES:
        assert repr(sample) == repr(
            decode_event(sample.type, sample.version, bytes.fromhex(bodies[f"{sample.type}@{sample.version}"]))
        )


def add_new() -> None:
    bodies, lock = _read(BODIES), _read(LOCK)
    for sample in SAMPLES:
        bodies.setdefault(f"{sample.type}@{sample.version}", sample.encode().hex())
    for cls in shipped():
        lock.setdefault(f"{cls.type}@{cls.version}", fingerprint(cls))
    BODIES.write_text(json.dumps(bodies, indent=1, sort_keys=True) + "\n")
    LOCK.write_text(json.dumps(lock, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    add_new()
