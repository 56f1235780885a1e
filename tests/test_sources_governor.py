"""The governor on a clock of its own: the rates hold, nobody starves, a site that refuses is left alone."""

import math
import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_site import Site, best_time, play

from marathon_pipeline.pipeline.fetches import Fetches
from marathon_pipeline.records import Outcome
from marathon_pipeline.sources.governor import Governor, Ticket
from marathon_pipeline.sources.reasons import rule_of
from marathon_pipeline.sources.settings import DownloadSettings, LimitSettings, SiteLimits

WATCH = "https://www.youtube.com/watch?v="
START = 1e9


def limits(**site: object) -> LimitSettings:
    return LimitSettings(sites={"s": SiteLimits(hosts=("s.org", "*.s.org"), **site)})  # type: ignore[arg-type]


def governor(settings: LimitSettings, *egresses: str) -> Governor:
    return Governor(settings, random.Random(0), egresses or ("shared",))


def taken(of: Governor, now: float, *sites: str) -> Ticket:
    ticket = of.next(sites or ("s",), now)
    assert ticket is not None
    return ticket


def most_within(times: list[float], seconds: float) -> int:
    return max((sum(time <= other < time + seconds for other in times) for time in times), default=0)


steps = st.lists(st.tuples(st.floats(0, 30), st.floats(0, 60), st.sampled_from("ab")), min_size=1, max_size=60)


@given(
    steps=steps,
    downloads=st.integers(1, 5),
    out=st.none() | st.integers(1, 6),
    wait=st.tuples(st.floats(0, 3), st.floats(3, 9)),
    nodes=st.sampled_from([("shared",), ("n1", "n2")]),
)
@settings(max_examples=150)
def test_no_rate_and_no_wait_is_ever_broken(steps, downloads, out, wait, nodes):
    site = SiteLimits(hosts=("a",), downloads=downloads, per_seconds=50, wait_seconds=wait)
    given_limits = LimitSettings(
        sites={"a": site, "b": site.model_copy(update={"hosts": ("b",)})}, egress_downloads=out, egress_per_seconds=50
    )
    paced = governor(given_limits, *nodes)
    now, begun, under_way = START, [], []
    for gap, length, wanted in steps:
        now += gap
        for end, ticket in sorted(under_way, key=lambda each: each[0]):
            if end <= now:
                reached = random.Random(end).uniform(ticket.at, end)
                paced.ended(ticket, end, began=reached, answered=True)
                begun[[each[0] for each in begun].index(ticket)][1] = reached
                under_way.remove((end, ticket))
        if ticket := paced.next([wanted], now):
            begun.append([ticket, now])
            under_way.append((now + length, ticket))
    done = [each for each in begun if each[0] not in [ticket for _, ticket in under_way]]
    for egress in nodes:
        for name in "ab":
            mine = [when for ticket, when in done if (ticket.site, ticket.egress) == (name, egress)]
            assert most_within(mine, 50) <= downloads
            starts = [ticket.at for ticket, _ in begun if (ticket.site, ticket.egress) == (name, egress)]
            assert all(later - earlier >= wait[0] for earlier, later in pairwise(starts))
        if out is not None:
            assert most_within([when for ticket, when in done if ticket.egress == egress], 50) <= out


@given(
    sites=st.lists(st.sampled_from(["a", "b", "c", "d", "e"]), min_size=1, unique=True),
    stuck=st.booleans(),
    turns=st.integers(1, 40),
)
def test_nobody_starves_and_a_paused_site_holds_up_no_other(sites, stuck, turns):
    paced = governor(LimitSettings())
    if stuck:
        paced.ended(taken(paced, START, "stuck"), START, refusal="bot_check")
    waiting = ["stuck", *sites] if stuck else sites
    served = [taken(paced, START + turn, *waiting).site for turn in range(turns)]
    assert "stuck" not in served
    for site in sites:
        turns_of = [-1, *(turn for turn, each in enumerate(served) if each == site), turns]
        assert all(later - earlier <= len(sites) for earlier, later in pairwise(turns_of))


@given(
    gaps=st.lists(st.floats(0, 40), max_size=20),
    refusals=st.lists(st.sampled_from(["", "bot_check", "http_429"]), min_size=20, max_size=20),
    rest=st.floats(0, 200),
)
def test_a_restarted_run_knows_what_the_first_one_knew(gaps, refusals, rest):
    settings = limits(downloads=5, per_seconds=100, wait_seconds=(1, 4))
    first, now = governor(settings), START
    for gap, refusal in zip(gaps, refusals, strict=False):
        now += gap
        for site in ("s", "other.org"):
            if ticket := first.next([site], now):
                first.ended(ticket, now, began=now, answered=not refusal, refusal=refusal)
    second = governor(settings)
    second.restore(first.state(now), now)
    assert second.state(now) == first.state(now)
    for site in ("s", "other.org"):
        assert second.wakes([site], now + rest) == first.wakes([site], now + rest)
    assert second.paused(now) == first.paused(now)


@pytest.mark.parametrize("state", ["", "{", "[]", '{"lanes": 3}', '{"lanes": {"s": {"shared": {"taken": ["x"]}}}}'])
def test_a_damaged_state_is_as_none(state):
    paced = governor(limits(downloads=1))
    paced.restore(state, START)
    assert paced.wakes(["s"], START) == START


def test_what_a_killed_run_had_under_way_counts_and_a_clock_set_back_does_not_block_for_ever():
    first = governor(limits(downloads=1, per_seconds=100))
    taken(first, START)
    second = governor(limits(downloads=1, per_seconds=100))
    second.restore(first.state(START + 30), START + 40)  # until then it may have reached the site
    assert second.wakes(["s"], START + 40) == pytest.approx(START + 40 + 101)
    early = START - 1e6
    third = governor(limits(downloads=1, per_seconds=100))
    third.restore(first.state(START), early)
    assert third.wakes(["s"], early) == pytest.approx(early + 101)


def test_a_clock_that_ran_ahead_keeps_no_site_closed_for_longer_than_it_asked_for():
    ahead, settings = START + 1e6, limits(downloads=1, per_seconds=100)
    first = governor(settings)
    first.ended(taken(first, ahead), ahead, began=ahead, refusal="http_429", retry_after=50)
    first.ended(taken(first, ahead, "other.org"), ahead, busy="http_503", retry_after=700)
    second = governor(settings)
    second.restore(first.state(ahead + 10), START)
    assert second.wakes(["s"], START) == pytest.approx(START + 91), "the one that began ten seconds ago"
    assert second.wakes(["other.org"], START) == START + 690
    assert [(pause.site, pause.since, pause.until) for pause in second.paused(START)] == [
        ("other.org", START - 10, START + 690),
        ("s", START - 10, START + 40),
    ]


def test_a_refusal_pauses_one_site_and_one_download_is_sent_ahead_of_the_others():
    paced = governor(LimitSettings(cool_down_seconds=60))
    before, refused = taken(paced, START, "a"), taken(paced, START, "a")
    paced.ended(refused, START + 5, refusal="http_429")
    paced.ended(before, START + 9, refusal="http_429")  # began before, so it tells nothing new
    assert [(pause.site, pause.until, pause.reason) for pause in paced.paused(START + 9)] == [
        ("a", START + 65, "http_429")
    ]
    assert paced.next(["a"], START + 64) is None
    assert paced.next(["b"], START + 64) is not None
    ahead = taken(paced, START + 65, "a")
    assert paced.next(["a"], START + 66) is None and paced.wakes(["a"], START + 66) == math.inf
    paced.ended(ahead, START + 70, refusal="bot_check")
    assert paced.wakes(["a"], START + 70) == START + 70 + 120, "each refusal in a row doubles the pause"
    ahead = taken(paced, START + 190, "a")
    paced.ended(ahead, START + 200)  # a broken connection says neither yes nor no
    ahead = taken(paced, START + 200, "a")
    paced.ended(ahead, START + 201, answered=True)
    assert taken(paced, START + 201, "a") and taken(paced, START + 201, "a")
    assert paced.paused(START + 201) == []


def test_retry_after_is_kept_to_and_one_that_is_too_far_off_is_left_to_a_later_run():
    paced = governor(LimitSettings())
    paced.ended(taken(paced, START, "a"), START, refusal="http_429", retry_after=7)
    assert paced.wakes(["a"], START) == START + 7
    paced.ended(taken(paced, START + 7, "a"), START + 7, refusal="http_429", retry_after=1e6)
    assert paced.wakes(["a"], START + 7) == math.inf
    assert paced.paused(START + 7)[0].given_up
    assert taken(paced, START + 3e6, "a")


def fetches_of(paced: Governor, settings: LimitSettings, *places: str) -> Fetches:
    """One video at each place, in this order."""
    fetches = Fetches(paced, settings)
    for number, place in enumerate(places):
        fetches.push((number, place, None), f"https://{place}")
    return fetches


def busy(seconds: float) -> Outcome:
    """A 503 with this Retry-After."""
    return Outcome(
        video_id="",
        stage="download",
        status="failed",
        reason="http_503",
        transient=True,
        retry_after=seconds,
        fingerprint="",
    )


def begun(fetches: Fetches, now: float) -> list[str]:
    picked = iter(lambda: fetches.next(now), None)
    return [entry[1] for entry, _ in picked]


def test_a_site_that_says_when_it_is_well_again_is_not_asked_before_and_has_not_refused():
    settings = LimitSettings(cool_down_seconds=60)
    paced = governor(settings)
    fetches = fetches_of(paced, settings, "a/1", "a/2", "a/3", "b/1")
    entry, ticket = fetches.next(START)
    assert fetches.ended(entry, ticket, busy(300), START + 1)
    assert begun(fetches, START + 1) == ["b/1"]
    assert fetches.wakes(START + 1) == START + 301
    assert [(pause.site, pause.reason, pause.until) for pause in paced.paused(START + 1)] == [
        ("a", "http_503", START + 301)
    ]
    again = governor(settings)
    again.restore(paced.state(START + 2), START + 2)
    assert again.wakes(["a"], START + 2) == START + 301, "the next run keeps to it too"
    assert begun(fetches, START + 300) == []
    assert begun(fetches, START + 301) == ["a/1", "a/2", "a/3"], "none is sent ahead: the breaker did not open"


def test_a_site_that_wants_to_be_left_alone_for_days_is_left_to_a_later_run():
    settings = LimitSettings()
    paced = governor(settings)
    fetches = fetches_of(paced, settings, "a/1", "a/2")
    fetches.ended(*fetches.next(START), busy(3e5), START)
    assert fetches.wakes(START) == math.inf
    assert paced.paused(START)[0].given_up


def test_a_busy_site_that_refused_before_is_asked_no_sooner_and_its_pauses_go_on_doubling():
    paced = governor(LimitSettings(cool_down_seconds=60))
    paced.ended(taken(paced, START, "a"), START, refusal="bot_check")
    paced.ended(taken(paced, START + 60, "a"), START + 60, busy="http_503", retry_after=500)
    assert paced.wakes(["a"], START + 60) == START + 560
    assert paced.paused(START + 60)[0].reason == "bot_check"
    paced.ended(taken(paced, START + 560, "a"), START + 560, refusal="bot_check")
    assert paced.wakes(["a"], START + 560) == START + 560 + 120


def test_a_wait_that_a_site_asked_for_is_neither_cut_short_by_a_refusal_nor_forgotten_for_an_answer():
    paced = governor(LimitSettings(cool_down_seconds=60))
    first, older, oldest = (taken(paced, START, "a") for _ in range(3))
    paced.ended(first, START + 1, busy="http_503", retry_after=3000)
    paced.ended(older, START + 2, refusal="bot_check")
    assert paced.wakes(["a"], START + 2) == START + 3001, "the pause of a refusal is shorter"
    ahead = taken(paced, START + 3001, "a")
    paced.ended(oldest, START + 3002, busy="http_503", retry_after=500)
    paced.ended(ahead, START + 3003, answered=True)
    assert paced.wakes(["a"], START + 3003) == START + 3502, "of those that began before, one was told to wait"
    assert paced.paused(START + 3003)[0].reason
    assert taken(paced, START + 3502, "a") and taken(paced, START + 3502, "a"), "the breaker is closed all the same"


@pytest.mark.parametrize("reason", ["extractor", "defect", "bad_input", "http_403"])
def test_a_failure_that_says_nothing_of_a_site_that_refused_lets_no_others_follow(reason):
    settings = LimitSettings(cool_down_seconds=60)
    paced = governor(settings)
    paced.ended(taken(paced, START, "a"), START, refusal="http_429")
    fetches = fetches_of(paced, settings, "a/1", "a/2", "a/3")
    unclear = busy(0).model_copy(update={"reason": reason, "transient": False})
    fetches.ended(*fetches.next(START + 60), unclear, START + 61)
    assert begun(fetches, START + 61) == ["a/2"], "one is sent ahead again"


def test_hosts_of_a_site_share_its_limits_and_a_job_may_change_one_of_them():
    urls = [
        f"{WATCH}x",
        "https://youtu.be/x",
        "https://m.youtube.com/x",
        "https://notyoutube.com/x",
        "http://[::1]:9/x",
    ]
    assert [LimitSettings().site_of(url) for url in urls] == ["youtube", "youtube", "youtube", "notyoutube.com", "::1"]
    changed = DownloadSettings.model_validate({"limits": {"youtube": {"downloads": 100}}}).limits.youtube
    assert (changed.downloads, changed.wait_seconds, "youtu.be" in changed.hosts) == (100, (5.0, 10.0), True)


def test_reasons_have_a_rule():
    assert [rule_of(reason, transient) for reason, transient in (("bot_check", True), ("http_429", True))] == [
        "source",
        "source",
    ]
    assert (rule_of("timeout", True), rule_of("removed", False), rule_of("http_404", False)) == (
        "later",
        "never",
        "request",
    )


@pytest.mark.parametrize("count", [299, 1000, 3000])
@pytest.mark.parametrize("seed", [0, 1])
def test_downloads_stay_within_the_published_limits_and_take_the_least_time_that_these_allow(count, seed):
    settings = LimitSettings()
    site = Site(dead=0.43)  # a usual share of an old list
    played = play(governor(settings), settings, {"youtube.com": site}, [("youtube.com", f"v{n}") for n in range(count)])
    assert (site.checks, site.most() <= 300) == (0, True)
    assert set(site.asked.values()) == {1}, "a video that is gone is asked for once"
    assert len(played.outcomes) == count and played.left == 0
    assert played.seconds <= 1.05 * best_time(count, settings, seconds=20.0)


def test_without_a_limit_the_site_checks_for_bots_and_the_others_go_on():
    settings = LimitSettings(youtube=SiteLimits(hosts=("youtube.com",), wait_seconds=(0, 0)))
    sites = {"youtube.com": Site(downloads=50), "other.org": Site(downloads=10_000)}
    videos = [("youtube.com", f"y{n}") for n in range(200)] + [("other.org", f"o{n}") for n in range(200)]
    played = play(governor(settings), settings, sites, videos)
    others = [time for time, site in played.begun if site == "other.org"]
    assert max(others) - min(others) < 1500, "they do not wait for the pauses of the first"
    assert all(played.outcomes[f"o{n}"] == "" for n in range(200))
    fine = sum(reason == "" for video, reason in played.outcomes.items() if video.startswith("y"))
    assert fine + sum(reason == "bot_check" for reason in played.outcomes.values()) + played.left == 200
    assert sites["youtube.com"].checks < 30, "it is not asked again and again"
