from __future__ import annotations

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from canary.core.arms import Arm
from canary.core.outcome import Outcome, Result
from gateway.record.metrics import Metrics
from gateway.record.page import Page
from gateway.record.series import TABLE
from gateway.record.snapshots import Snapshots, file_of
from tests.gateway.record.sample import counting, files

GOOD = Outcome(Arm.BASELINE, Result.OK, e2e=0.3, ttft=0.02)


async def write(page: Page, pid: int, metrics: Metrics) -> None:
    """One worker writes its sums."""
    await Snapshots(metrics, file_of(page.folder, pid)).write()


def values(page: Page) -> dict[str, float]:
    """What a scraper reads, by name and labels."""
    families = text_string_to_metric_families(page.render().decode())
    return {f"{s.name}{sorted(s.labels.values())}": s.value for family in families for s in family.samples}


async def test_all_workers_are_one_page(tmp_path: Path):
    """Counters, buckets and what is under way add up."""
    page = Page(tmp_path)
    for pid in (1, 2):
        metrics = counting("m")
        metrics.in_flight = pid
        metrics.store_up(up=pid == 1)
        for _ in range(pid):
            metrics.observe("m", GOOD)
        await write(page, pid, metrics)
    found = values(page)
    assert found["linnet_requests_total['baseline', 'm', 'ok']"] == 3
    assert found["linnet_ttft_seconds_bucket['0.025', 'baseline', 'm']"] == 3
    assert found["linnet_ttft_seconds_bucket['+Inf', 'baseline', 'm']"] == 3
    assert found["linnet_ttft_seconds_bucket['0.01', 'baseline', 'm']"] == 0
    assert found["linnet_requests_in_flight[]"] == 3
    assert found["linnet_store_up[]"] == 0
    assert found["linnet_split_ratio['candidate', 'desired', 'm']"] == 0.25


async def test_what_a_dead_worker_counted_stays_and_its_gauges_go(tmp_path: Path):
    """A restart is no reset, and ten thousand of them leave no file."""
    page = Page(tmp_path)
    for pid in (1, 2, 3):
        metrics = counting("m")
        metrics.observe("m", GOOD)
        metrics.in_flight = 1
        await write(page, pid, metrics)
    for pid in (1, 2, 2):  # one that is reported twice counts once
        page.bury(pid)
    found = values(page)
    assert found["linnet_requests_total['baseline', 'm', 'ok']"] == 3
    assert found["linnet_requests_in_flight[]"] == 1
    assert files(tmp_path) == ["3.json"]
    page.bury(3)
    found = values(page)
    assert found["linnet_requests_total['baseline', 'm', 'ok']"] == 3
    assert "linnet_requests_in_flight[]" not in found


async def test_a_worker_that_died_before_it_wrote_leaves_nothing(tmp_path: Path):
    """Nothing to keep is no error."""
    page = Page(tmp_path)
    page.bury(7)
    assert "linnet_requests_total[]" not in values(page)


async def test_every_metric_is_on_the_page_from_the_start(tmp_path: Path):
    """A dashboard can be built before the first request."""
    page = Page(tmp_path)
    await write(page, 1, Metrics())
    told = {line.split()[2] for line in page.render().decode().splitlines() if line.startswith("# TYPE")}
    assert told == set(TABLE)


async def test_labels_are_escaped(tmp_path: Path):
    """A model's name may be anything an operator writes."""
    page = Page(tmp_path)
    metrics = counting('a"b\\c\nd')
    metrics.fail_over('a"b\\c\nd')
    await write(page, 1, metrics)
    assert values(page)["linnet_fail_overs_total" + str(['a"b\\c\nd'])] == 1
