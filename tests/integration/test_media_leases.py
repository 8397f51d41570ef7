"""Who works on which film: one at a time, and somebody else when that one is gone."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agents.media.leases import Hold, Job, Leases, Work
from compose.connections import open_postgres
from compose.provisioning import provision_tables
from compose.settings import Settings
from projections.catalogue import Stage, stage_order
from projections.queries.versions import Versions
from tests.catalogue import Rows, open_rows

LEASE_SECONDS = 600.0

Named = Callable[[str], Leases]


@pytest.fixture
async def pool(postgres: None, settings: Settings) -> AsyncIterator[Any]:
    await provision_tables(settings)
    async with open_postgres(settings) as pool:
        yield pool


@pytest.fixture
async def rows(pool: Any) -> Rows:
    return await open_rows(pool)


@pytest.fixture
def worker(pool: Any) -> Named:
    return lambda name: Leases(pool, Versions(), name, LEASE_SECONDS)


async def claimed(leases: Leases, work: Work = Work.TRANSCODE) -> Job:
    job = await leases.claim(work)
    assert job is not None
    return job


async def test_each_film_has_one_worker_however_many_ask_at_once(rows: Rows, worker: Named) -> None:
    for number in range(8):
        await rows.upload(f"film-{number}")

    async def greedy(leases: Leases) -> list[str]:
        taken: list[str] = []
        while len(taken) < 8 and await rows.waiting():
            if job := await leases.claim(Work.TRANSCODE):
                taken.append(job.video_id)
        return taken

    taken = await asyncio.gather(*(greedy(worker(f"w{number}")) for number in range(4)))
    assert sorted(itertools.chain(*taken)) == sorted(f"film-{number}" for number in range(8))


async def test_the_film_that_has_waited_longest_comes_first(rows: Rows, worker: Named) -> None:
    now = datetime.now(UTC)
    await rows.upload("late", at=now)
    await rows.upload("early", at=now - timedelta(minutes=1))
    assert (await claimed(worker("w"))).video_id == "early"


async def test_a_dead_workers_film_is_claimed_by_another_with_a_higher_number(rows: Rows, worker: Named) -> None:
    await rows.upload("film")
    dead = await claimed(worker("dead"))
    await rows.expire_leases()
    heir = await claimed(worker("heir"))
    assert (heir.video_id, heir.attempts) == ("film", 2)
    assert heir.claim > dead.claim


async def test_a_worker_that_was_overtaken_is_told_so(rows: Rows, worker: Named) -> None:
    await rows.upload("film")
    slow = worker("slow")
    job = await claimed(slow)
    await rows.expire_leases()
    await claimed(worker("heir"))
    assert await slow.renew(job) is Hold.LOST


async def test_an_overtaken_worker_changes_nothing_for_its_heir(rows: Rows, worker: Named) -> None:
    await rows.upload("film")
    slow, heir = worker("slow"), worker("heir")
    old = await claimed(slow)
    await rows.expire_leases()
    new = await claimed(heir)
    await slow.give_back(old)
    await slow.finish(old)
    assert await heir.renew(new) is Hold.HELD


async def test_a_claim_that_is_renewed_stays_with_its_worker(rows: Rows, worker: Named) -> None:
    await rows.upload("film")
    leases = worker("w")
    job = await claimed(leases)
    await rows.expire_leases()
    assert await leases.renew(job) is Hold.HELD
    assert await worker("other").claim(Work.TRANSCODE) is None


async def test_a_claim_given_back_is_free_at_once_and_was_no_attempt(rows: Rows, worker: Named) -> None:
    await rows.upload("film")
    leases = worker("stopping")
    await leases.give_back(await claimed(leases))
    assert (await claimed(worker("next"))).attempts == 1


async def test_a_claim_put_off_is_not_free_yet(rows: Rows, worker: Named) -> None:
    await rows.upload("film")
    leases = worker("w")
    await leases.give_back(await claimed(leases), after_seconds=LEASE_SECONDS)
    assert await leases.claim(Work.TRANSCODE) is None


async def test_a_finished_film_is_not_claimed_while_the_catalogue_lags(rows: Rows, worker: Named) -> None:
    await rows.upload("film")
    leases = worker("w")
    await leases.finish(await claimed(leases))
    await rows.expire_leases()
    assert await leases.claim(Work.TRANSCODE) is None


@pytest.mark.parametrize("state", ["COMPLETED", "FAILED"])
async def test_a_film_that_came_to_its_end_is_no_work(rows: Rows, worker: Named, state: str) -> None:
    await rows.upload("film", status=state)
    assert await worker("w").claim(Work.TRANSCODE) is None


async def test_a_film_whose_bytes_are_still_coming_is_no_work(rows: Rows, worker: Named) -> None:
    await rows.initiate("film")
    assert await worker("w").claim(Work.TRANSCODE) is None


async def test_a_claim_passes_all_that_the_catalogue_has_seen(rows: Rows, worker: Named) -> None:
    """Even when the leases were lost: the catalogue would take an older claim's word for nothing."""
    await rows.upload("film", status="PROCESSING", stage=stage_order(41, Stage.PROCESSING))
    assert (await claimed(worker("w"))).claim == 42


async def test_a_worker_is_told_at_its_renewal_that_the_film_was_deleted(rows: Rows, worker: Named) -> None:
    await rows.upload("film")
    leases = worker("w")
    job = await claimed(leases)
    await rows.delete("film")
    assert await leases.renew(job) is Hold.DELETED


async def test_a_deleted_film_is_work_for_who_deletes_and_once(rows: Rows, worker: Named) -> None:
    await rows.upload("film")
    await rows.delete("film")
    leases = worker("w")
    assert await leases.claim(Work.TRANSCODE) is None
    await leases.finish(await claimed(leases, Work.DELETE))
    await rows.expire_leases()
    assert await leases.claim(Work.DELETE) is None


async def test_an_upload_is_settled_when_its_ticket_has_expired_and_not_before(rows: Rows, worker: Named) -> None:
    now = datetime.now(UTC)
    await rows.initiate("fresh", at=now - timedelta(days=6))
    assert await worker("w").claim(Work.SETTLE) is None
    await rows.initiate("expired", at=now - timedelta(days=8))
    assert (await claimed(worker("w"), Work.SETTLE)).video_id == "expired"
