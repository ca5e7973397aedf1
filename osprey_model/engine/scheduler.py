"""The scheduler: requests wait by priority, their questions run as rows of a running batch, one token per `step`.

Requests may be added between any two steps. A request of a better priority (a smaller number) is answered first, from
the next token on; rows of worse priorities keep their place and wait. `Osprey.describe` loops over a scheduler. A
worker that accepts clicks while bulk work runs has its own loop:

    scheduler = osprey.scheduler()
    while True:
        for request, on_result in arrived():
            scheduler.add(request, on_result, priority=0)
        scheduler.step()
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from osprey_model.engine.answers import answer_of
from osprey_model.engine.decoding.decoder import NewRow, SharedPrefixDecoder
from osprey_model.engine.decoding.rows import Row
from osprey_model.engine.decoding.static_step import StaticStep
from osprey_model.engine.prefix import ImagePrefix, PrefixStore, embed_rows
from osprey_model.engine.prompt_plan import Plan, Planner
from osprey_model.engine.regions import EncodedRegion, MaskKey, RegionReader
from osprey_model.engine.requests import Answer, BadQuestion, Failure, ImageRequest, Question, RegionRequest
from osprey_model.engine.running_batch import Budget, Entry, RunningBatch, SharedPromptPrefix
from osprey_model.inputs.tokenizer import OspreyTokenizer
from osprey_model.modeling.mask_extractor import RegionTokens

PromptPrefixKey = tuple[int, tuple[int, ...]]  # number of ids shared with the image's opening, ids of the prefix

# region index, question index, result
OnResult = Callable[[int, int, Answer | Failure], None]

# Fewer questions with the same prompt prefix do not pay for a pass of its own.
_SHARE_PROMPT_PREFIX_FROM = 3


@dataclass(slots=True, eq=False)
class _Job:
    """A request that has been added and is not finished.

    Attributes:
        waiting: (region index, question index) of the questions that have no row yet.
        mask_uses: number of waiting questions per mask; its tokens are dropped when none is left.
        prompt_prefix_uses: number of questions per prompt prefix.
        prefix: of the image; None until it is encoded, or the error that prevented it.
        encoded: region tokens that waiting questions still need.
    """

    request: ImageRequest
    on_result: OnResult
    priority: int
    waiting: deque[tuple[int, int]]
    plans: dict[tuple[int, int], Plan]
    mask_uses: Counter[MaskKey]
    prompt_prefix_uses: Counter[PromptPrefixKey]
    prefix: ImagePrefix | Exception | None = None
    encoded: dict[MaskKey, EncodedRegion | Exception] = field(default_factory=dict)
    prompt_prefixes: dict[PromptPrefixKey, SharedPromptPrefix] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class _PendingQuestion:
    """The job, region and question that a row answers."""

    job: _Job
    region_idx: int
    question_idx: int
    plan: Plan
    region: EncodedRegion | None = None

    @property
    def mask_key(self) -> MaskKey:
        return self.region_idx, self.plan.question.mask_idx

    @property
    def prompt_prefix_key(self) -> PromptPrefixKey:
        return self.plan.shared, self.plan.prompt_prefix_ids


@dataclass(frozen=True, slots=True)
class SchedulerParts:
    """The parts of one model that its schedulers share."""

    decoder: SharedPrefixDecoder
    tokenizer: OspreyTokenizer
    planner: Planner
    prefixes: PrefixStore
    reader: RegionReader
    static: Callable[[], StaticStep | None]


class Scheduler:
    """Add requests at any time and call `step` until `is_idle`. Not thread-safe."""

    def __init__(self, parts: SchedulerParts, budget: Budget) -> None:
        """Create a scheduler without requests.

        Args:
            parts: of one model.
            budget: limits of each priority in use; memory is allocated as rows need it.
        """
        self._parts = parts
        self._budget = budget
        self._jobs: dict[int, deque[_Job]] = {}  # jobs with waiting questions, by priority
        self._batches: dict[int, RunningBatch] = {}  # by priority
        self._pending: dict[Row, _PendingQuestion] = {}  # rows that run
        self._results: deque[tuple[_Job, int, int, Answer | Failure]] = deque()  # not yet delivered

    @property
    def is_idle(self) -> bool:
        """Whether no question waits or runs and every result has been delivered."""
        return not (self._pending or self._results or any(self._jobs.values()))

    @property
    def num_rows(self) -> int:
        """Number of questions that are being answered."""
        return len(self._pending)

    def add(self, request: ImageRequest, on_result: OnResult, *, priority: int = 0) -> _Job:
        """Add a request to the queue of its priority.

        Args:
            request: its image and masks are read when its turn comes.
            on_result: called from `step` with each answer or failure, as soon as it is ready.
            priority: requests of a smaller number are answered first.

        Returns:
            The handle that `cancel` takes.
        """
        known: dict[Question, Plan] = {}  # the regions of a request mostly have the same questions
        plans: dict[tuple[int, int], Plan] = {}
        failures: list[tuple[int, int, Failure]] = []
        for region_idx, region in enumerate(request.regions):
            for question_idx, question in enumerate(region.questions):
                try:
                    _check_mask_idx(region_idx, region, question)
                    if question not in known:
                        known[question] = self._parts.planner.plan(question)
                    plans[region_idx, question_idx] = known[question]
                except ValueError as error:
                    failures.append((region_idx, question_idx, Failure.of(error)))
        job = _Job(
            request,
            on_result,
            priority,
            waiting=deque(plans),
            plans=plans,
            mask_uses=Counter((r, plan.question.mask_idx) for (r, _), plan in plans.items()),
            prompt_prefix_uses=Counter((plan.shared, plan.prompt_prefix_ids) for plan in plans.values()),
        )
        self._results.extend((job, *failure) for failure in failures)
        if job.waiting:
            self._jobs.setdefault(priority, deque()).append(job)
        return job

    def cancel(self, job: _Job) -> None:
        """Remove a request: its waiting questions do not run, its rows end, and no more results are delivered."""
        job.waiting.clear()
        if job in self._jobs.get(job.priority, ()):
            self._jobs[job.priority].remove(job)
        rows = [row for row, pending in self._pending.items() if pending.job is job]
        if rows:
            self._batches[job.priority].cancel(rows)
        for row in rows:
            del self._pending[row]
        self._results = deque(result for result in self._results if result[0] is not job)

    @torch.inference_mode()
    def step(self) -> None:
        """Decode one token of every row of the best priority, admit waiting questions, deliver results."""
        running = {pending.job.priority for pending in self._pending.values()}
        due = running | {priority for priority, jobs in self._jobs.items() if jobs}
        if due:
            batch = self._batch(min(due))
            ended = batch.step()
            for row in (*ended, *self._admit(min(due), batch)):
                self._finish(row)
        # Removed one by one: a callback that raises must not lose the results behind it.
        while self._results:
            job, region_idx, question_idx, result = self._results.popleft()
            job.on_result(region_idx, question_idx, result)

    def _batch(self, priority: int) -> RunningBatch:
        if priority not in self._batches:
            parts = self._parts
            self._batches[priority] = RunningBatch(
                parts.decoder, parts.tokenizer.eos_token_id, self._budget, static=parts.static()
            )
        return self._batches[priority]

    def _admit(self, priority: int, batch: RunningBatch) -> list[Row]:
        """Fill free slots with waiting questions; return the rows that ended with their first token."""
        jobs = self._jobs.get(priority)
        if not jobs or not self._should_prefill(jobs, batch):
            return []
        questions = self._take_questions(jobs, batch)
        questions = self._encode_regions(self._attach_images(questions))
        if not questions:
            return []
        entries = self._entries(questions, batch)
        self._pending.update((entry.row, pending) for entry, pending in zip(entries, questions, strict=True))
        return batch.admit(entries)

    def _should_prefill(self, jobs: Sequence[_Job], batch: RunningBatch) -> bool:
        """Whether to admit questions now.

        A pass over few prompts costs almost as much as one over many. So if more questions wait than slots are free,
        a quarter of the slots must be free first.
        """
        free = self._budget.rows - len(batch.rows)
        waiting = 0
        for job in jobs:
            waiting += len(job.waiting)
            if waiting > free:
                return not batch.rows or 4 * free >= self._budget.rows
        return True

    def _take_questions(self, jobs: deque[_Job], batch: RunningBatch) -> list[_PendingQuestion]:
        """Remove the next questions from their jobs, as many as the budget allows."""
        taken: list[_PendingQuestion] = []
        capacity = positions = 0
        in_flight = {id(self._pending[row].job) for row in batch.rows}
        while jobs:
            job = jobs[0]
            if id(job) not in in_flight and len(in_flight) >= self._budget.images:
                break
            in_flight.add(id(job))
            while job.waiting:
                plan = job.plans[job.waiting[0]]
                length = len(plan.prompt_prefix_ids) + len(plan.tail_ids)
                if not batch.fits(len(taken) + 1, max(capacity, plan.capacity)):
                    return taken
                if taken and positions + length > self._budget.prefill_positions:
                    return taken
                capacity, positions = max(capacity, plan.capacity), positions + length
                taken.append(_PendingQuestion(job, *job.waiting.popleft(), plan))
            jobs.popleft()
        return taken

    def _attach_images(self, questions: Sequence[_PendingQuestion]) -> list[_PendingQuestion]:
        """Set the image prefix of every job; images that are not in the cache are encoded as one batch.

        Returns:
            The questions whose image could be read; the others have failed.
        """
        new = [job for job in dict.fromkeys(pending.job for pending in questions) if job.prefix is None]
        found = self._parts.prefixes.of_all([(job.request.image, job.request.image_key) for job in new])
        for job, prefix in zip(new, found, strict=True):
            job.prefix = prefix
            if not isinstance(prefix, ImagePrefix):
                if job in self._jobs[job.priority]:
                    self._jobs[job.priority].remove(job)
                self._results.extend((job, *place, Failure.of(prefix)) for place in job.waiting)
                job.waiting.clear()
        for pending in questions:
            if isinstance(pending.job.prefix, Exception):
                self._fail(pending, pending.job.prefix)
        return [pending for pending in questions if isinstance(pending.job.prefix, ImagePrefix)]

    def _encode_regions(self, questions: Sequence[_PendingQuestion]) -> list[_PendingQuestion]:
        """Encode the masks that are not encoded yet; drop the tokens that no waiting question needs.

        Returns:
            The questions with their region; those whose mask could not be read have failed.
        """
        for job in dict.fromkeys(pending.job for pending in questions):
            of_job = [pending.mask_key for pending in questions if pending.job is job]
            keys = dict.fromkeys(key for key in of_job if key not in job.encoded)
            job.encoded.update(self._parts.reader.read(_prefix(job), job.request.regions, list(keys)))
        readable = []
        for pending in questions:
            job, key = pending.job, pending.mask_key
            region = job.encoded[key]
            if isinstance(region, EncodedRegion):
                readable.append(replace(pending, region=region))
            else:
                self._fail(pending, region)
            job.mask_uses[key] -= 1
            if not job.mask_uses[key]:
                del job.encoded[key]
        return readable

    def _fail(self, pending: _PendingQuestion, error: Exception) -> None:
        self._results.append((pending.job, pending.region_idx, pending.question_idx, Failure.of(error)))

    def _entries(self, questions: Sequence[_PendingQuestion], batch: RunningBatch) -> list[Entry]:
        """Create a row per question, with the embeddings of its prompt; all prompts are embedded together."""
        self._prefill_prompt_prefixes(questions, batch)
        prefixes = [pending.job.prompt_prefixes.get(pending.prompt_prefix_key) for pending in questions]
        # With a shared prompt prefix only the rest of the prompt is run.
        ids = [
            pending.plan.tail_ids if prefix is not None else pending.plan.prompt_prefix_ids + pending.plan.tail_ids
            for pending, prefix in zip(questions, prefixes, strict=True)
        ]
        regions = RegionTokens.joined([pending.region.tokens for pending in questions if pending.region is not None])
        embeds = self._embed(ids, regions)
        return [
            Entry(
                Row(
                    prefix=_prefix(pending.job).kv_of(pending.plan.shared),
                    num_prompt=len(pending.plan.prompt_prefix_ids) + len(pending.plan.tail_ids),
                    max_new_tokens=pending.plan.limit,
                    walk=pending.plan.walk(),
                ),
                embeds_SD,
                prompt_prefix,
            )
            for pending, embeds_SD, prompt_prefix in zip(questions, embeds, prefixes, strict=True)
        ]

    def _prefill_prompt_prefixes(self, questions: Sequence[_PendingQuestion], batch: RunningBatch) -> None:
        """Run the text in front of the region once, where enough questions on an image begin with it."""
        wanted = {
            (pending.job, pending.prompt_prefix_key): None
            for pending in questions
            if pending.plan.prompt_prefix_ids
            and pending.prompt_prefix_key not in pending.job.prompt_prefixes
            and pending.job.prompt_prefix_uses[pending.prompt_prefix_key] >= _SHARE_PROMPT_PREFIX_FROM
        }
        if not wanted:
            return
        embeds = self._embed([ids for _, (_, ids) in wanted], None)
        prompts = [
            NewRow(embeds_SD, _prefix(job).kv_of(shared))
            for (job, (shared, _)), embeds_SD in zip(wanted, embeds, strict=True)
        ]
        for (job, key), prompt_prefix in zip(wanted, batch.prefill_prompt_prefixes(prompts), strict=True):
            job.prompt_prefixes[key] = prompt_prefix

    def _embed(self, ids: Sequence[tuple[int, ...]], regions: RegionTokens | None) -> tuple[Tensor, ...]:
        return embed_rows(self._parts.decoder, self._parts.tokenizer.mask_token_id, ids, regions)

    def _finish(self, row: Row) -> None:
        pending = self._pending.pop(row)
        warnings = () if pending.region is None else pending.region.warnings
        answer = answer_of(row, pending.plan.question, self._parts.tokenizer, warnings)
        self._results.append((pending.job, pending.region_idx, pending.question_idx, answer))


def _check_mask_idx(region_idx: int, region: RegionRequest, question: Question) -> None:
    if not 0 <= question.mask_idx < len(region.masks):
        raise BadQuestion(
            f"region {region_idx} has {len(region.masks)} masks, but a question asks about mask_idx {question.mask_idx}"
        )


def _prefix(job: _Job) -> ImagePrefix:
    assert isinstance(job.prefix, ImagePrefix), "a question was admitted before its image was encoded"
    return job.prefix
