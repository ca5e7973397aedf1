"""The scheduler: requests wait by priority, their questions run in a lane's slots, one token per `step`.

Between two steps anything may be added: a request of a better priority (a smaller number) is answered first, from the
next token on, while rows of worse priority keep their place and wait. `engine.py` loops over this; a worker that
wants to take in clicks while bulk work runs does so itself:

    session = osprey.session()
    while True:
        for request, hand_over in arrived():
            session.add(request, hand_over, priority=0)
        session.step()
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
from osprey_model.engine.regions import MaskKey, RegionReader, Seen
from osprey_model.engine.requests import Answer, BadQuestion, Failure, ImageRequest, Question, RegionRequest
from osprey_model.engine.running_batch import Budget, Entry, Lane, Lead
from osprey_model.inputs.tokenizer import OspreyTokenizer
from osprey_model.modeling.mask_extractor import RegionTokens

LeadKey = tuple[int, tuple[int, ...]]  # how much of the opening it stands behind, and its ids

# region index, question index, what came of it
OnResult = Callable[[int, int, Answer | Failure], None]

_SHARE_LEAD_FROM = 3  # questions with the same first words; fewer are not worth a pass of their own


@dataclass(slots=True, eq=False)
class _Job:
    """A request on its way."""

    request: ImageRequest
    on_result: OnResult
    priority: int
    waiting: deque[tuple[int, int]]
    plans: dict[tuple[int, int], Plan]
    mask_uses: Counter[MaskKey]
    lead_uses: Counter[LeadKey]
    prefix: ImagePrefix | Exception | None = None
    seen: dict[MaskKey, Seen | Exception] = field(default_factory=dict)
    leads: dict[LeadKey, Lead] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """A row's way back to who asked."""

    job: _Job
    region_idx: int
    question_idx: int
    plan: Plan
    region: Seen | None = None

    @property
    def mask_key(self) -> MaskKey:
        return self.region_idx, self.plan.question.mask_idx

    @property
    def lead_key(self) -> LeadKey:
        return self.plan.shared, self.plan.lead_ids


@dataclass(frozen=True, slots=True)
class SessionParts:
    """What sessions of one model share."""

    decoder: SharedPrefixDecoder
    tokenizer: OspreyTokenizer
    planner: Planner
    prefixes: PrefixStore
    reader: RegionReader
    static: Callable[[], StaticStep | None]


class EngineSession:
    """Add requests at any time, call `step` until `is_idle`. Not for several threads at once."""

    def __init__(self, parts: SessionParts, budget: Budget) -> None:
        """Start empty.

        Args:
            parts: of one model.
            budget: of each priority in use; memory is allocated as rows need it.
        """
        self._parts = parts
        self._budget = budget
        self._jobs: dict[int, deque[_Job]] = {}  # with waiting questions, by priority
        self._lanes: dict[int, Lane] = {}
        self._asked: dict[Row, _Asked] = {}
        self._results: deque[tuple[_Job, int, int, Answer | Failure]] = deque()

    @property
    def is_idle(self) -> bool:
        """Nothing waits, runs or is to be handed over."""
        return not (self._asked or self._results or any(self._jobs.values()))

    @property
    def num_rows(self) -> int:
        """Questions that are being answered now."""
        return len(self._asked)

    def add(self, request: ImageRequest, on_result: OnResult, *, priority: int = 0) -> _Job:
        """Let a request wait for its turn.

        Args:
            request: its masks are read when their turn comes.
            on_result: called from `step` with every answer or failure as it is ready.
            priority: smaller is sooner.

        Returns:
            What `cancel` takes.
        """
        known: dict[Question, Plan] = {}  # regions mostly share their questions
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
            lead_uses=Counter((plan.shared, plan.lead_ids) for plan in plans.values()),
        )
        self._results.extend((job, *failure) for failure in failures)
        if job.waiting:
            self._jobs.setdefault(priority, deque()).append(job)
        return job

    def cancel(self, job: _Job) -> None:
        """Forget a request: what waits is not run, what runs ends, nothing more is handed over."""
        job.waiting.clear()
        if job in self._jobs.get(job.priority, ()):
            self._jobs[job.priority].remove(job)
        rows = [row for row, asked in self._asked.items() if asked.job is job]
        if rows:
            self._lanes[job.priority].drop(rows)
        for row in rows:
            del self._asked[row]
        self._results = deque(result for result in self._results if result[0] is not job)

    @torch.inference_mode()
    def step(self) -> None:
        """Take in what fits, decode one token of every row of the best priority, hand over what is ready."""
        running = {asked.job.priority for asked in self._asked.values()}
        due = running | {priority for priority, jobs in self._jobs.items() if jobs}
        if due:
            lane = self._lane(min(due))
            ended = lane.step()
            for row in (*ended, *self._admit(min(due), lane)):
                self._finish(row)
        # Taken one by one: a callback that raises must not lose the results behind it.
        while self._results:
            job, region_idx, question_idx, result = self._results.popleft()
            job.on_result(region_idx, question_idx, result)

    def _lane(self, priority: int) -> Lane:
        if priority not in self._lanes:
            parts = self._parts
            self._lanes[priority] = Lane(
                parts.decoder, parts.tokenizer.eos_token_id, self._budget, static=parts.static()
            )
        return self._lanes[priority]

    def _admit(self, priority: int, lane: Lane) -> list[Row]:
        """Fill free slots from the waiting jobs; returns rows that ended with their first token."""
        jobs = self._jobs.get(priority)
        if not jobs or not self._worth_it(jobs, lane):
            return []
        asked = self._draw(jobs, lane)
        asked = self._with_region(self._with_image(asked))
        if not asked:
            return []
        entries = self._entries(asked, lane)
        self._asked.update((entry.row, one) for entry, one in zip(entries, asked, strict=True))
        return lane.admit(entries)

    def _worth_it(self, jobs: Sequence[_Job], lane: Lane) -> bool:
        """A pass over few prompts costs almost as much as over many: wait until a quarter of the slots is free."""
        free = self._budget.rows - len(lane.rows)
        waiting = 0
        for job in jobs:
            waiting += len(job.waiting)
            if waiting > free:
                return not lane.rows or 4 * free >= self._budget.rows
        return True

    def _draw(self, jobs: deque[_Job], lane: Lane) -> list[_Asked]:
        """The next questions that stay within the budget, taken off their jobs."""
        asked: list[_Asked] = []
        capacity = positions = 0
        in_flight = {id(self._asked[row].job) for row in lane.rows}
        while jobs:
            job = jobs[0]
            if id(job) not in in_flight and len(in_flight) >= self._budget.images:
                break
            in_flight.add(id(job))
            while job.waiting:
                plan = job.plans[job.waiting[0]]
                length = len(plan.lead_ids) + len(plan.tail_ids)
                if not lane.fits(len(asked) + 1, max(capacity, plan.capacity)):
                    return asked
                if asked and positions + length > self._budget.prefill_positions:
                    return asked
                capacity, positions = max(capacity, plan.capacity), positions + length
                asked.append(_Asked(job, *job.waiting.popleft(), plan))
            jobs.popleft()
        return asked

    def _with_image(self, asked: Sequence[_Asked]) -> list[_Asked]:
        """Give the jobs their prefixes: images that are not kept are encoded together."""
        new = [job for job in dict.fromkeys(one.job for one in asked) if job.prefix is None]
        found = self._parts.prefixes.of_all([(job.request.image, job.request.image_key) for job in new])
        for job, prefix in zip(new, found, strict=True):
            job.prefix = prefix
            if not isinstance(prefix, ImagePrefix):
                if job in self._jobs[job.priority]:
                    self._jobs[job.priority].remove(job)
                self._results.extend((job, *place, Failure.of(prefix)) for place in job.waiting)
                job.waiting.clear()
        for one in asked:
            if isinstance(one.job.prefix, Exception):
                self._fail(one, one.job.prefix)
        return [one for one in asked if isinstance(one.job.prefix, ImagePrefix)]

    def _with_region(self, asked: Sequence[_Asked]) -> list[_Asked]:
        """Read the masks that are not read yet; what no later question needs is forgotten."""
        for job in dict.fromkeys(one.job for one in asked):
            keys = dict.fromkeys(one.mask_key for one in asked if one.job is job and one.mask_key not in job.seen)
            job.seen.update(self._parts.reader.read(_prefix(job), job.request.regions, list(keys)))
        seen = []
        for one in asked:
            region = one.job.seen[one.mask_key]
            if isinstance(region, Seen):
                seen.append(replace(one, region=region))
            else:
                self._fail(one, region)
            one.job.mask_uses[one.mask_key] -= 1
            if not one.job.mask_uses[one.mask_key]:
                del one.job.seen[one.mask_key]
        return seen

    def _fail(self, one: _Asked, error: Exception) -> None:
        self._results.append((one.job, one.region_idx, one.question_idx, Failure.of(error)))

    def _entries(self, asked: Sequence[_Asked], lane: Lane) -> list[Entry]:
        """Rows with their embeddings: all prompts are embedded at once."""
        self._run_leads(asked, lane)
        leads = [one.job.leads.get(one.lead_key) for one in asked]
        ids = [
            one.plan.tail_ids if lead is not None else one.plan.lead_ids + one.plan.tail_ids
            for one, lead in zip(asked, leads, strict=True)
        ]
        regions = RegionTokens.joined([one.region.tokens for one in asked if one.region is not None])
        embeds = self._embed(ids, regions)
        return [
            Entry(
                Row(
                    prefix=_prefix(one.job).kv_of(one.plan.shared),
                    num_prompt=len(one.plan.lead_ids) + len(one.plan.tail_ids),
                    max_new_tokens=one.plan.limit,
                    walk=one.plan.walk(),
                ),
                embeds_SD,
                lead,
            )
            for one, embeds_SD, lead in zip(asked, embeds, leads, strict=True)
        ]

    def _run_leads(self, asked: Sequence[_Asked], lane: Lane) -> None:
        """The words in front of the region, where enough questions of an image begin with them."""
        wanted = {
            (one.job, one.lead_key): None
            for one in asked
            if one.plan.lead_ids
            and one.lead_key not in one.job.leads
            and one.job.lead_uses[one.lead_key] >= _SHARE_LEAD_FROM
        }
        if not wanted:
            return
        embeds = self._embed([lead_ids for _, (_, lead_ids) in wanted], None)
        prompts = [
            NewRow(embeds_SD, _prefix(job).kv_of(shared))
            for (job, (shared, _)), embeds_SD in zip(wanted, embeds, strict=True)
        ]
        for (job, key), lead in zip(wanted, lane.make_leads(prompts), strict=True):
            job.leads[key] = lead

    def _embed(self, ids: Sequence[tuple[int, ...]], regions: RegionTokens | None) -> tuple[Tensor, ...]:
        return embed_rows(self._parts.decoder, self._parts.tokenizer.mask_token_id, ids, regions)

    def _finish(self, row: Row) -> None:
        one = self._asked.pop(row)
        warnings = () if one.region is None else one.region.warnings
        answer = answer_of(row, one.plan.question, self._parts.tokenizer, warnings)
        self._results.append((one.job, one.region_idx, one.question_idx, answer))


def _check_mask_idx(region_idx: int, region: RegionRequest, question: Question) -> None:
    if not 0 <= question.mask_idx < len(region.masks):
        raise BadQuestion(
            f"region {region_idx} has {len(region.masks)} masks, but a question asks about mask_idx {question.mask_idx}"
        )


def _prefix(job: _Job) -> ImagePrefix:
    assert isinstance(job.prefix, ImagePrefix), "a question was let in before its image was encoded"
    return job.prefix
