"""What the loader gives out: every sample once, in an order that a killed run takes up again."""

import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import islice
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from failing_store import failing_store  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from object_store import environment  # noqa: E402
from small_releases import Film, films, proxy, released  # noqa: E402

from marathon_pipeline.dataset import storage  # noqa: E402
from marathon_pipeline.dataset.storage import Storage  # noqa: E402
from marathon_pipeline.errors import Failed, UserError  # noqa: E402
from marathon_pipeline.hour_llava.data.conversation import asked  # noqa: E402
from marathon_pipeline.hour_llava.data.loader import Loader  # noqa: E402
from marathon_pipeline.hour_llava.data.mix import Kind, MixSettings, rates  # noqa: E402
from marathon_pipeline.hour_llava.data.plan import batched, dealt, generator, let_out  # noqa: E402
from marathon_pipeline.hour_llava.data.proxies import decoded  # noqa: E402
from marathon_pipeline.hour_llava.data.reader import Mixed, Place, Reader  # noqa: E402
from marathon_pipeline.hour_llava.data.settings import LoaderSettings  # noqa: E402
from marathon_pipeline.hour_llava.data.shards import ReleaseShards  # noqa: E402
from marathon_pipeline.hour_llava.data.units import estimated_tokens  # noqa: E402
from marathon_pipeline.hour_llava.example import Example  # noqa: E402
from marathon_pipeline.hour_llava.export.write import export_release  # noqa: E402
from marathon_pipeline.hour_llava.features import Cached, feature_key, write_features  # noqa: E402
from marathon_pipeline.release.settings import ReleaseSettings  # noqa: E402

FILMS = [
    *films(9, pairs=7),
    *(Film(f"yt_more-{n}", seconds=300.0 + 60 * n, frames=2 + n, pairs=1 + 4 * n) for n in range(4)),
]
PAIRS = sum(film.pairs * len(film.tasks) for film in FILMS)


@pytest.fixture(scope="module")
def by_shards(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int], str]:
    """The same videos, in releases of other numbers of shards for QA and for media."""
    return {
        shards: str(
            released(tmp_path_factory.mktemp("ds"), FILMS, ReleaseSettings(shards=shards[0], media_shards=shards[1]))
        )
        for shards in ((1, 1), (2, 3), (4, 4))
    }


@pytest.fixture
def url(by_shards: dict[tuple[int, int], str]) -> str:
    return by_shards[2, 3]


def loader_of(*urls: str, **more: object) -> "Loader[list[Example]]":
    plain = {"releases": urls, "workers": 0, "window": 4, "batch_size": 3}
    return Loader(LoaderSettings.model_validate(plain | more))


def seen(batches: Sequence[Sequence[Example]]) -> list[tuple[str, ...]]:
    return [tuple(example.key for example in batch) for batch in batches]


@settings(max_examples=12)
@given(data=st.data())
def test_every_sample_comes_once_over_all_ranks_and_workers_and_after_any_interruption(
    by_shards: dict[tuple[int, int], str], data: st.DataObject
) -> None:
    url = by_shards[data.draw(st.sampled_from(sorted(by_shards)), "shards")]
    plain = LoaderSettings(
        releases=(url,),
        batch_size=data.draw(st.integers(1, 5), "batch"),
        window=data.draw(st.integers(1, 9), "window"),
        open_units=data.draw(st.integers(1, 3), "open units"),
        turns=data.draw(st.integers(1, 6), "turns"),
        max_tokens=data.draw(st.sampled_from([1, 2_000, 1_000_000]), "tokens"),
        seed=data.draw(st.integers(0, 2**32), "seed"),
    )
    release = ReleaseShards(url, "train", media=True)
    found = rates(plain.mix, release.counts(plain.mix.long_seconds))
    mixed = Mixed([release], found.of, plain, estimated_tokens)
    readers = data.draw(st.integers(1, 7), "ranks x workers")
    epoch = data.draw(st.integers(0, 3), "epoch")
    everything: list[Example] = []
    for number in range(readers):
        whole = list(Reader(mixed, number, readers, epoch, Place()))
        everything += [example for each in whole for example in each.examples]
        if whole:
            stop = data.draw(st.integers(0, len(whole) - 1), "interrupted after")
            rest = list(Reader(mixed, number, readers, epoch, whole[stop].place))
            assert seen([each.examples for each in rest]) == seen([each.examples for each in whole[stop + 1 :]])
            for again, before in zip(rest, whole[stop + 1 :], strict=True):
                assert again.place == before.place
                for one, other in zip(again.examples, before.examples, strict=True):
                    assert one.turns == other.turns
                    assert torch.equal(one.frames, other.frames)
    assert len({example.key for example in everything}) == len(everything)
    ids = Counter(qa_id for example in everything for qa_id in example.qa_ids)
    assert len(ids) == PAIRS and set(ids.values()) == {1}
    assert all(len(example.qa_ids) <= plain.turns for example in everything)


def test_a_killed_loader_with_workers_goes_on_at_the_very_next_batch(url: str) -> None:
    whole = loader_of(url, workers=2)
    undisturbed, following = seen(list(whole)), seen(list(whole))
    first = loader_of(url, workers=2)
    before = list(islice(first, 5))
    state = json.loads(json.dumps(first.state_dict()))
    second = loader_of(url, workers=2)
    second.load_state_dict(state)
    after = list(second)
    assert seen(before) + seen(after) == undisturbed
    assert second.epoch == 1
    assert seen(list(second)) == following != undisturbed


def test_two_ranks_with_workers_share_an_epoch_without_overlap_or_loss(url: str) -> None:
    plain = LoaderSettings(releases=(url,), workers=2, window=4, batch_size=3)
    ranks = [list(Loader(plain, rank, 2)) for rank in range(2)]
    ids = [qa_id for batches in ranks for batch in batches for example in batch for qa_id in example.qa_ids]
    assert len(ids) == len(set(ids)) == PAIRS
    assert [Loader(plain, rank, 2).batches() for rank in range(2)] == [len(batches) for batches in ranks]


def test_another_epoch_and_another_seed_give_another_order(url: str) -> None:
    loader = loader_of(url)
    first, second = seen(list(loader)), seen(list(loader))
    assert first != second and sorted(k for b in first for k in b) == sorted(k for b in second for k in b)
    assert seen(list(loader_of(url, seed=1))) != first
    assert seen(list(loader_of(url))) == first


def test_a_state_of_other_settings_is_refused(url: str) -> None:
    state = loader_of(url).state_dict()
    with pytest.raises(UserError, match="resume with the same ones"):
        loader_of(url, workers=2).load_state_dict(state)


def test_a_conversation_is_of_one_video_and_options_stand_in_its_questions(url: str) -> None:
    for example in (example for batch in loader_of(url) for example in batch):
        for question, answer in example.turns:
            assert example.video_id in question
            if "\n" in question:
                assert question.endswith("\nA. red\nB. green\nC. blue\nD. grey") and answer == "B"
            else:
                assert answer == "green"
    assert asked("Which?", ["one", "two"]) == "Which?\nA. one\nB. two"


def test_a_proxy_gives_the_frame_of_each_second_and_no_frame_twice(url: str) -> None:
    frames = decoded(proxy(5), "film")
    assert frames.shape == (5, 64, 96, 3) and frames.dtype == torch.uint8
    means = frames.float().mean((1, 2, 3)).tolist()
    assert means == sorted(means) and len({round(mean) for mean in means}) == 5
    assert decoded(proxy(5), "film", side=32).shape == (5, 32, 32, 3)


@pytest.mark.parametrize("damage", [b"", b"#EXTM3U\nfile:///etc/passwd\n", proxy(5)[:1500], proxy(5)[:-200]])
def test_a_damaged_proxy_is_a_failure_and_not_a_shorter_video(damage: bytes) -> None:
    with pytest.raises(Failed, match="film"):
        decoded(damage, "film")


def test_a_sample_that_cannot_be_read_is_counted_and_named_and_nothing_takes_its_place(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = str(released(tmp_path, films(8, pairs=3), ReleaseSettings(media_shards=2)))
    undisturbed = seen(list(loader_of(url)))
    broken = "yt_film-3"
    for tar in tmp_path.glob("media/v1/*.tar"):
        data = tar.read_bytes()
        at = data.find(b"yt_film-3.mp4")
        if at >= 0:
            start = data.index(b"mdat", at)
            tar.write_bytes(data[:start] + bytes(1200) + data[start + 1200 :])
    loader = loader_of(url)
    with caplog.at_level(logging.WARNING):
        left = seen(list(loader))
    assert left == [kept for batch in undisturbed if (kept := tuple(key for key in batch if broken not in key))]
    lost = [key for batch in undisturbed for key in batch if broken in key]
    assert lost and sorted(each.key for each in loader.named) == sorted(lost)
    assert loader.unreadable == Counter(unreadable=len(lost))
    assert all(key in caplog.text for key in lost)


def test_of_a_shard_that_is_cut_off_the_rest_is_named_and_what_comes_before_is_read(tmp_path: Path) -> None:
    url = str(released(tmp_path, films(8, pairs=3), ReleaseSettings()))
    (tar,) = tmp_path.glob("media/v1/*.tar")
    data = tar.read_bytes()
    tar.write_bytes(data[: data.index(b"yt_film-5.mp4") + 700])
    loader = loader_of(url)
    videos = {example.video_id for batch in loader for example in batch}
    assert videos == {f"yt_film-{n}" for n in range(5)}
    assert {each.key.split("/")[1] for each in loader.named} == {f"yt_film-{n}" for n in (5, 6, 7)}
    assert set(loader.unreadable) == {"no_media"}


def test_a_missing_shard_is_said_in_one_line(tmp_path: Path) -> None:
    url = str(released(tmp_path, films(3), ReleaseSettings()))
    (tar,) = tmp_path.glob("media/v1/*.tar")
    tar.unlink()
    for workers in (0, 1):
        with pytest.raises(UserError, match=r"train-000000\.tar is missing; `marathon check` its release") as raised:
            list(loader_of(url, workers=workers))
        assert "Traceback" not in str(raised.value)


def test_a_worker_reads_the_qa_of_its_own_bucket_alone(tmp_path: Path) -> None:
    url = str(released(tmp_path, films(40, pairs=40), ReleaseSettings(shards=4, media_shards=4)))
    release = ReleaseShards(url, "train", media=True)
    for tar in release.tars:
        table = release.pairs(release.class_of_tar(tar))
        inside = {sample["__key__"] for sample in release.samples(tar, lambda name: True)}
        assert set(table["video_id"].to_pylist()) == inside
        assert len(table) == 80 * len(inside)
    groups = release._classes_of_groups["temporal_order"]
    assert len(groups) > 1
    assert sum(classes.bit_count() for classes in groups) < 4 * len(groups)  # else each class reads every row group


@given(count=st.integers(0, 60), held=st.integers(1, 70), seed=st.integers())
def test_a_buffer_lets_out_each_item_once_and_none_before_it_came_in(count: int, held: int, seed: int) -> None:
    order = let_out(count, held, generator(seed))
    assert sorted(order) == list(range(count))
    assert all(index <= position + held - 1 for position, index in enumerate(order))


@given(
    tokens=st.lists(st.integers(1, 100), max_size=50),
    window=st.integers(1, 20),
    size=st.integers(1, 6),
    limit=st.integers(1, 300),
    seed=st.integers(),
)
def test_batches_hold_each_item_once_and_keep_to_their_size(
    tokens: list[int], window: int, size: int, limit: int, seed: int
) -> None:
    found = batched(range(len(tokens)), tokens, window, size, limit, generator(seed))
    assert sorted(index for batch in found for index in batch) == list(range(len(tokens)))
    for batch in found:
        assert 1 <= len(batch) <= size
        assert len(batch) == 1 or len(batch) * max(tokens[index] for index in batch) <= limit


def test_batches_waste_less_on_padding_than_the_order_itself() -> None:
    rng = generator("lengths")
    tokens = [rng.randint(50, 9_000) for _ in range(640)]
    matched = batched(range(640), tokens, 64, 8, 10**9, rng)
    plain = batched(range(640), tokens, 8, 8, 10**9, rng)

    def padding(batches: list[list[int]]) -> float:
        padded = sum(len(batch) * max(tokens[index] for index in batch) for batch in batches)
        return 1 - sum(tokens) / padded

    assert padding(matched) < padding(plain) / 3


@given(units=st.integers(0, 40), readers=st.integers(1, 12), seed=st.integers())
def test_units_are_dealt_without_overlap_or_loss(units: int, readers: int, seed: int) -> None:
    hands = [dealt(range(units), reader, readers, seed) for reader in range(readers)]
    assert sorted(unit for hand in hands for unit in hand) == list(range(units))
    assert max(map(len, hands)) - min(map(len, hands)) <= 1


def kinds(**counts: int) -> Counter[Kind]:
    made = {
        "long": Kind("temporal_order", "temporality", "panda-70m", True),
        "short": Kind("object_attribute", "object", "llava-video", False),
    }
    return Counter({made[name]: count for name, count in counts.items()})


@given(long=st.integers(1, 10**6), short=st.integers(1, 10**6), ratio=st.floats(0.1, 10))
def test_long_and_short_videos_are_taken_in_the_ratio_asked_for_and_one_of_them_whole(
    long: int, short: int, ratio: float
) -> None:
    found = rates(MixSettings(long_to_short=ratio), kinds(long=long, short=short))
    taken_long, taken_short = found.pairs
    assert taken_long == pytest.approx(ratio * taken_short)
    assert max(found.of.values()) == 1.0


def test_without_short_videos_all_long_ones_are_taken() -> None:
    assert rates(MixSettings(), kinds(long=7)).pairs == (7.0, 0.0)


def test_a_mix_that_names_what_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match="hold no `charades`"):
        rates(MixSettings(sources={"charades": 0.5}), kinds(long=1))
    with pytest.raises(UserError, match="no QA pair at all"):
        rates(MixSettings(tasks={"temporal_order": 0}), kinds(long=1))


def test_the_mix_takes_the_share_of_tasks_and_lengths_asked_for(tmp_path: Path) -> None:
    long = [Film(f"yt_long-{n}", seconds=600.0, pairs=20) for n in range(10)]
    short = [Film(f"yt_short-{n}", seconds=60.0, pairs=20, data_source="llava-video") for n in range(10)]
    first = str(released(tmp_path / "a", long, ReleaseSettings(), "long-1"))
    second = str(released(tmp_path / "b", short, ReleaseSettings(), "short-1"))
    mix = {"tasks": {"object_attribute": 0.5}}
    loader = loader_of(first, second, mix=mix)
    taken = Counter((ex.video_id[3:7], q[0]) for batch in loader for ex in batch for q in ex.turns)
    of_long = sum(count for (side, _), count in taken.items() if side == "long")
    of_short = taken.total() - of_long
    assert loader.rates.pairs == (300.0, 100.0)
    assert 2.2 < of_long / of_short < 4.0 and 260 < of_long < 340
    other = [qa_id for batch in loader for ex in batch for qa_id in ex.qa_ids]
    again = [qa_id for batch in loader_of(first, second, mix=mix) for ex in batch for qa_id in ex.qa_ids]
    assert set(other) != set(again)  # another epoch draws others


@pytest.fixture
def cached(tmp_path: Path) -> tuple[str, Callable[[str], torch.Tensor]]:
    url = str(released(tmp_path, films(6, pairs=3), ReleaseSettings(shards=2, media=False)))
    storage = Storage(str(tmp_path))

    def features_of(video_id: str) -> torch.Tensor:
        return torch.full((4, 64, 8), float(video_id[-1]), dtype=torch.bfloat16)

    for film in films(6):
        write_features(storage, film.source_id, Cached(features_of(film.source_id), "same", "0" * 64))
    return url, features_of


def test_cached_features_take_the_place_of_the_proxies(cached: tuple[str, Callable[[str], torch.Tensor]]) -> None:
    url, features_of = cached
    examples = [example for batch in loader_of(url, features=True) for example in batch]
    assert len({qa_id for example in examples for qa_id in example.qa_ids}) == 36
    for example in examples:
        assert example.frames is None and example.features.dtype == torch.bfloat16
        assert torch.equal(example.features, features_of(example.video_id))


def test_features_that_are_missing_or_damaged_are_named(
    cached: tuple[str, Callable[[str], torch.Tensor]], tmp_path: Path
) -> None:
    url, _ = cached
    (tmp_path / feature_key("yt_film-2")).unlink()
    damaged = tmp_path / feature_key("yt_film-4")
    damaged.write_bytes(damaged.read_bytes()[:-10])
    loader = loader_of(url, features=True)
    videos = {example.video_id for batch in loader for example in batch}
    assert videos == {f"yt_film-{n}" for n in (0, 1, 3, 5)}
    assert set(loader.unreadable) == {"no_features", "features_damaged"}


def test_features_of_another_tower_are_refused(
    cached: tuple[str, Callable[[str], torch.Tensor]], tmp_path: Path
) -> None:
    url, features_of = cached
    write_features(Storage(str(tmp_path)), "yt_film-3", Cached(features_of("yt_film-3"), "other", "0" * 64))
    with pytest.raises(UserError, match="made by other settings"):
        list(loader_of(url, features=True))


def test_a_release_is_read_from_an_object_store_as_from_a_folder(url: str) -> None:
    assert seen(list(loader_of(f"file://{url}"))) == seen(list(loader_of(url)))


@pytest.mark.parametrize("features", [False, True])
def test_a_store_that_fails_under_a_loader_or_an_export_ends_it_and_costs_no_video(
    features: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ReleaseSettings(shards=2, media_shards=2, media=not features)
    name = released(tmp_path, films(6, pairs=3), settings).name
    for film in films(6) if features else ():
        made = Cached(torch.zeros((4, 64, 8), dtype=torch.bfloat16), "same", "0" * 64)
        write_features(Storage(str(tmp_path)), film.source_id, made)
    with failing_store() as store:
        for path in filter(Path.is_file, tmp_path.rglob("*")):
            store.objects[f"/b/{path.relative_to(tmp_path)}"] = path.read_bytes()
        for variable, value in environment(store.url).items():
            monkeypatch.setenv(variable, value)
        monkeypatch.setattr(storage, "PATIENCE", timedelta(seconds=0.1))
        plain = LoaderSettings(releases=(f"s3://b/releases/{name}",), workers=0, batch_size=3, features=features)
        assert len({example.video_id for batch in Loader(plain) for example in batch}) == 6
        loader = Loader(plain)
        store.fails = lambda request: 503 if request.path.endswith(("1.tar", "film-3.safetensors")) else None
        with pytest.raises(Failed, match="cannot be read"):
            list(loader)
        assert not loader.unreadable
        with pytest.raises(Failed, match="cannot be read"):
            export_release(plain.releases[0], "hourllava" if features else "llava-next", "train", tmp_path / "out")
