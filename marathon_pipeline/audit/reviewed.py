"""What people's judgements come to: the share of sound pairs, by strata of the sample, and how far reviewers agree.

The population are the pairs that pass the gates for items; a stratum is a task and a format, of which pairs are dealt
by their hash. A pair counts once two people have judged it; while they disagree it counts as not sound.

To replace what people rejected mends what they looked at, and nothing of what it was a sample of. So a rejected pair
stays in its stratum, not sound, when it is replaced; those in the place of others are strata of their own.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, compress
from typing import NamedTuple

from marathon_pipeline.audit.rows import Pairs
from marathon_pipeline.audit.statistics import Agreement, Reviewed, ReviewStratum, Signer, SoundShare, share
from marathon_pipeline.dataset.reviews import REJECTED, Judged, Judgement, Reviews, Standing
from marathon_pipeline.intervals import wilson
from marathon_pipeline.records import Format, QAPair


class Stratum(NamedTuple):
    task: str
    format: Format
    replaced: bool  # written in the place of a rejected one


class ReviewCount:
    """Takes all pairs of a dataset, in any order; what was said of pairs that never come is of pairs that are gone."""

    def __init__(self, reviews: Reviews) -> None:
        self._reviews = reviews
        self._population: Counter[Stratum] = Counter()
        self._strata: dict[Judged, Stratum] = {}  # of the pairs of the population that are judged, or may come to be
        self._replaced = 0

    def add(self, video_id: str, pairs: Pairs, passed: Sequence[bool]) -> list[tuple[str, ...]]:
        """The pairs of a video. passed: the gates for items. Returns the reasons that people give to reject each."""
        strata = strata_of(pairs)
        self._population.update(compress(strata, passed))
        if video_id not in self._reviews.standings:
            return [()] * len(passed)
        judged, rejected = pairs.judged(), self._reviews.rejected(video_id)
        self._strata.update(compress(zip(judged, strata, strict=True), passed))
        before = {
            qa_id: stratum._replace(replaced=place > 0)
            for stratum, ids in zip(strata, pairs.column("instead_of"), strict=True)
            for place, qa_id in enumerate(ids)
        }
        for each in rejected.difference(judged):
            if stratum := before.get(each.qa_id):
                self._population[stratum] += 1
                self._strata[each] = stratum
                self._replaced += 1
        return [(REJECTED,) if each in rejected else () for each in judged]

    def extend(self, other: "ReviewCount") -> None:
        """With what was counted of other videos."""
        self._population.update(other._population)
        self._strata |= other._strata
        self._replaced += other._replaced

    def watch(self, pair: QAPair) -> None:
        """Have what is said of a pair from now on counted."""
        self._strata[Judged.of(pair)] = Stratum(pair.task, pair.format, pair.tries > 0)

    def statistics(self) -> Reviewed:
        """By the judgements as the reviews hold them now."""
        said = {judged: s for of_video in self._reviews.standings.values() for judged, s in of_video.items()}
        standings = {judged: standing for judged, standing in said.items() if judged in self._strata}
        strata = tuple(self._by_stratum(standings))
        tasks = sorted({stratum.task for stratum in strata})
        return Reviewed(
            whole=sound_share(strata),
            tasks={task: sound_share(each for each in strata if each.task == task) for task in tasks},
            strata=strata,
            agreement=tuple(_agreements(standings.values())),
            signers=tuple(_signers(standings.values())),
            reasons=_reasons(standings.values()),
            disputed=sum(s.ruling is None and s.disputed for s in standings.values()),
            half=sum(len(s.reviews) == 1 for s in standings.values()),
            replaced=self._replaced,
            gone=len(said) - len(standings),
        )

    def _by_stratum(self, standings: Mapping[Judged, Standing]) -> Iterable[ReviewStratum]:
        of_stratum: defaultdict[Stratum, list[Standing]] = defaultdict(list)
        for judged, standing in standings.items():
            if len(standing.reviews) > 1:
                of_stratum[self._strata[judged]].append(standing)
        for stratum, pairs in sorted(self._population.items()):
            own = of_stratum[stratum]
            yield ReviewStratum(
                **stratum._asdict(),
                pairs=pairs,
                judged=len(own),
                sound=sum(standing.ruling == "accept" for standing in own),
                agreed=sum(not standing.disputed for standing in own),
            )


def strata_of(pairs: Pairs) -> list[Stratum]:
    return list(map(Stratum, pairs.tasks, pairs.formats, pairs.replaced))


def sound_share(strata: Iterable[ReviewStratum]) -> SoundShare:
    """The share of sound pairs, each stratum weighted by its size, with a 95 % interval.

    Wilson's interval at the effective sample size of a stratified sample from finite strata (Cochran 1977, section 5;
    Franco et al. 2019): where a whole stratum was judged, nothing of it is left to chance. A stratum of which nothing
    was judged is not spoken of; `covers` is the share of the pairs that is.
    """
    every = tuple(strata)
    seen = [stratum for stratum in every if stratum.judged]
    pairs, judged = sum(stratum.pairs for stratum in seen), sum(stratum.judged for stratum in seen)
    if not seen:
        return SoundShare(share=0.0, low=0.0, high=1.0, judged=0, covers=0.0)
    weights = [stratum.pairs / pairs for stratum in seen]
    value = sum(weight * stratum.sound / stratum.judged for weight, stratum in zip(weights, seen, strict=True))
    smoothed = [(stratum.sound + 1) / (stratum.judged + 2) for stratum in seen]  # no stratum is all sound for sure
    middle = sum(weight * p for weight, p in zip(weights, smoothed, strict=True))
    variance = sum(
        weight**2 * p * (1 - p) / stratum.judged * (stratum.pairs - stratum.judged) / max(1, stratum.pairs - 1)
        for weight, p, stratum in zip(weights, smoothed, seen, strict=True)
    )
    size = middle * (1 - middle) / variance if variance else 0.0
    low, high = wilson(value * size, size) if size else (value, value)
    covers = share(pairs, sum(stratum.pairs for stratum in every))
    return SoundShare(
        share=round(value, 6), low=round(max(0.0, low), 6), high=round(min(1.0, high), 6), judged=judged, covers=covers
    )


def cohens_kappa(both: Mapping[tuple[str, str], int]) -> float | None:
    """Agreement beyond what two reviewers' own habits would give by chance (Cohen 1960); None where that says nothing.

    both: how often the two gave which verdicts.
    """
    total = sum(both.values())
    verdicts = {verdict for pair in both for verdict in pair}
    first = {v: sum(n for (one, _), n in both.items() if one == v) / total for v in verdicts}
    second = {v: sum(n for (_, other), n in both.items() if other == v) / total for v in verdicts}
    chance = sum(first[v] * second[v] for v in verdicts)
    if math.isclose(chance, 1.0):
        return None
    return round((sum(both.get((v, v), 0) for v in verdicts) / total - chance) / (1 - chance), 4)


def _agreements(standings: Iterable[Standing]) -> Iterable[Agreement]:
    """Of each two reviewers who judged the same pairs."""
    tables: defaultdict[tuple[str, str], Counter[tuple[str, str]]] = defaultdict(Counter)
    names: dict[str, str] = {}
    for standing in standings:
        names |= {each.who: each.reviewer for each in standing.reviews}
        for first, second in combinations(standing.reviews, 2):
            tables[first.who, second.who][first.verdict, second.verdict] += 1
    for (one, other), both in sorted(tables.items()):
        yield Agreement(
            reviewers=(names[one], names[other]),
            judged=both.total(),
            agreed=sum(n for (a, b), n in both.items() if a == b),
            kappa=cohens_kappa(both),
        )


def _signers(standings: Iterable[Standing]) -> Iterable[Signer]:
    said: defaultdict[str, list[Judgement]] = defaultdict(list)
    for standing in standings:
        for judgement in (*standing.reviews, *standing.adjudications):
            said[judgement.who].append(judgement)
    for _, own in sorted(said.items()):
        yield Signer(
            name=own[0].reviewer,
            reviewed=sum(each.role == "review" for each in own),
            adjudicated=sum(each.role == "adjudicate" for each in own),
            first=min(each.at for each in own)[:10],
            last=max(each.at for each in own)[:10],
        )


def _reasons(standings: Iterable[Standing]) -> dict[str, int]:
    """Why the rejected pairs were rejected; a pair may have several reasons."""
    reasons: Counter[str] = Counter()
    for standing in standings:
        if standing.ruling == "reject":
            said = standing.adjudications or standing.reviews
            reasons.update({each.reason for each in said if each.verdict == "reject"})
    return dict(sorted(reasons.items()))
