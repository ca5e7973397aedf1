"""XXX."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """Bounds and lifetimes of jobs. Times in seconds."""

    segment_timeout_s: int = 120  # a large SAM on a CPU embeds for a minute; the next click finds it embedded
    describe_timeout_s: int = 300  # all fields of a few regions on a slow CPU
    background_timeout_s: int = 600  # warm-up and bulk jobs
    interactive_bound: int = 32  # waiting jobs per queue before a click is answered "busy"
    train_timeout_s: int = 7 * 86_400  # a fine-tune of a 7B model, and the gate
    background_bound: int = 2000
    data_bound: int = 10_000  # hints; what does not fit is found by the next reconcile
    data_timeout_s: int = 6 * 3600  # the first look at a large project
    queued_ttl_s: int = 300  # a click that no worker took by then is forgotten
    background_queued_ttl_s: int = 86_400
    result_ttl_s: int = 3600  # late answers travel with a later request
    failure_ttl_s: int = 3600
    max_retries: int = 1  # a job whose worker died runs once more
    heartbeat_ttl_s: float = 10.0
    redis_timeout_s: float = 0.9  # a Redis that hangs is noticed within a second
