"""Evaluation: which option is taken, what is counted, and that needles are seen where they are said to be."""

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from conftest import Command  # noqa: E402
from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from small_releases import films, released  # noqa: E402
from tiny_training import examples, job_of  # noqa: E402

from marathon_pipeline.dataset.dataset import media_key  # noqa: E402
from marathon_pipeline.dataset.storage import Storage  # noqa: E402
from marathon_pipeline.errors import UserError  # noqa: E402
from marathon_pipeline.hour_llava.data.proxies import decoded  # noqa: E402
from marathon_pipeline.hour_llava.evaluation.answering import Answerer, letter_of  # noqa: E402
from marathon_pipeline.hour_llava.evaluation.cards import (  # noqa: E402
    PATTERNS,
    CardSettings,
    cards_of,
    numbered,
    picture_of,
)
from marathon_pipeline.hour_llava.evaluation.evaluate import evaluate  # noqa: E402
from marathon_pipeline.hour_llava.evaluation.needles import write_needles  # noqa: E402
from marathon_pipeline.hour_llava.evaluation.questions import Question, shown  # noqa: E402
from marathon_pipeline.hour_llava.evaluation.settings import EvaluateJob, load_evaluate_job  # noqa: E402
from marathon_pipeline.hour_llava.evaluation.tally import Answer, accuracies, lengths_of  # noqa: E402
from marathon_pipeline.hour_llava.training.build import build, load  # noqa: E402
from marathon_pipeline.release.settings import ReleaseSettings  # noqa: E402


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a model that nobody trained."""
    folder = tmp_path_factory.mktemp("model")
    made, processor = build(job_of(folder, "s3").model, 0)
    made.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return released(tmp_path_factory.mktemp("dataset"), films(4, pairs=4), ReleaseSettings())


def question(number: int = 0, *, seconds: float = 300.0, at: float | None = None, letter: str = "B") -> Question:
    options = ("red", "green", "blue", "light grey")
    return Question(f"q{number}", "v", "temporal_order", "temporality", "Which?", options, letter, seconds, at)


def test_an_answer_is_read_by_its_letter_or_by_the_one_option_that_it_names() -> None:
    options = ("red", "a green bar", "blue", "grey")
    said = {
        "B": "B",
        "b.": "B",
        "(C) blue": "C",
        "The answer is D": "D",
        "Option: A": "A",
        "**C**": "C",
        "A green bar.": "B",
        "a green bar": "B",
        "It is blue, I think": "C",
        "B because of it": "B",
        "A thing that is grey": "D",
        "blue or grey": "",
        "Bar": "",
        "E": "",
        "": "",
    }
    assert {text: letter_of(text, options) for text in said} == said


def test_a_likelihood_is_that_of_the_whole_answer_as_training_sees_it(model: Path) -> None:
    net, processor = load(model)
    answerer = Answerer(net, processor)
    video = examples(1, features=True)[0]
    for answers in (["A", "B", "C", "D"], ["red", "a light grey bar", "b"]):
        prompt = answerer._prompt(shown(video, video.features, "Which?"), blind=False)
        found = answerer._likelihoods(prompt, answers)
        for answer, score in zip(answers, found, strict=True):
            whole = shown(video, video.features, "Which?")
            batch = processor([type(whole)(**{**vars(whole), "turns": (("Which?", answer),)})])
            tokens = int((batch["labels"] != -100).sum())
            expected = -float(net(**batch).loss.detach()) * tokens
            assert score == pytest.approx(expected, abs=1e-3)


def test_without_the_video_an_answer_is_the_same_for_every_video(model: Path) -> None:
    answerer = Answerer(*load(model))
    videos = examples(6, features=True)
    for how in ("letters", "texts", "generation"):
        blind = {answerer.answer(question(), how, video, video.features, blind=True) for video in videos}
        assert len(blind) == 1
    likelihoods = {
        tuple(answerer._likelihoods(answerer._prompt(shown(v, v.features, "Which?"), blind), ["A", "B"]))
        for v in videos
        for blind in (False,)
    }
    assert len(likelihoods) > 1  # which it is not where the video is read


@given(
    st.lists(st.tuples(st.floats(1, 7200), st.one_of(st.none(), st.floats(0, 0.999)), st.booleans()), min_size=1),
    st.integers(1, 12),
)
def test_every_answer_is_counted_once_in_each_breakdown(
    told: list[tuple[float, float | None, bool]], depths: int
) -> None:
    asked = {f"q{n}": question(n, seconds=s, at=at) for n, (s, at, _) in enumerate(told)}
    answers = [
        Answer(qa_id=f"q{n}", how="letters", blind=False, letter="B" if right else "")
        for n, (*_, right) in enumerate(told)
    ]
    (found,) = accuracies(answers, asked, (5, 10), depths)
    right = sum(right for *_, right in told)
    assert (found.overall.right, found.overall.asked, found.unclear) == (right, len(told), len(told) - right)
    for part in (found.by_task, found.by_topic, found.by_length):
        assert sum(share.asked for share in part.values()) == len(told)
        assert sum(share.right for share in part.values()) == right
    assert set(found.by_length) <= set(lengths_of((5, 10)))
    cells = [cell for row in found.by_depth_and_length for cell in row]
    assert sum(cell.asked for cell in cells) == sum(at is not None for _, at, _ in told)


@given(st.integers(0, 2**32), st.integers(1, 4), st.floats(1, 60), st.integers(1, 7))
def test_cards_of_a_video_are_apart_and_each_has_its_own_pattern(
    seed: int, count: int, minutes: float, most: int
) -> None:
    settings = CardSettings(minutes=(minutes,), cards=count, seconds=(1, most))
    cards = cards_of(settings, minutes, seed)
    assert len({card.pattern for card in cards}) == count == len(cards)
    for number, card in enumerate(cards):
        part = 60 * minutes / count
        assert int(number * part) <= card.span.start < card.span.end <= (number + 1) * part
        assert 1 <= card.span.end - card.span.start <= most
    assert cards == cards_of(settings, minutes, seed)


def test_patterns_can_be_told_apart_by_a_small_picture() -> None:
    settings = CardSettings(minutes=(3,), cards=4)
    cards = {card.pattern: card for card in cards_of(settings, 3, 0)}
    masks = {pattern: picture_of(cards[pattern], 32, 32).min(axis=2) < 200 for pattern in PATTERNS}
    assert masks["plain"].all()
    for one in PATTERNS:
        for other in PATTERNS:
            assert one == other or (masks[one] != masks[other]).mean() > 0.2


def test_a_needle_is_seen_in_its_seconds_and_in_no_other(tmp_path: Path) -> None:
    settings = CardSettings(minutes=(1,), videos=1, cards=2, seconds=(1, 2), height=90)
    release = write_needles(tmp_path / "one", [settings])
    ((video_id, minutes, seed),) = numbered(settings)
    proxy = Storage(str(tmp_path / "one")).read(media_key("proxies", video_id, ".mp4"))
    frames = decoded(proxy, video_id).float()
    assert len(frames) == 60
    cards = cards_of(settings, minutes, seed)
    for card in cards:
        wanted = torch.from_numpy(picture_of(card, 160, 90)).float()
        apart = (frames - wanted).abs().mean((1, 2, 3))
        seen = [second for second, distance in enumerate(apart.tolist()) if distance < 20]
        assert seen == list(range(int(card.span.start), int(card.span.end)))
    rows = json.loads((release / "release.json").read_text())["tasks"]["object_attribute"]
    assert rows["splits"]["test"] == 4  # two cards, each open and as a choice
    again = write_needles(tmp_path / "two", [settings])
    assert Storage(str(tmp_path / "two")).read(media_key("proxies", video_id, ".mp4")) == proxy
    assert (again / "qa/object_attribute/test.parquet").read_bytes() == (
        release / "qa/object_attribute/test.parquet"
    ).read_bytes()


def test_two_sets_of_needles_of_one_seed_are_refused(tmp_path: Path) -> None:
    settings = CardSettings(minutes=(1,), videos=1, height=90)
    with pytest.raises(UserError, match="give each its own seed"):
        write_needles(tmp_path, [settings, settings])


def job(out: Path, model: Path, release: Path, **more: Any) -> EvaluateJob:
    fields = {"out": str(out), "model": str(model), "releases": [str(release)], "split": "train", **more}
    return EvaluateJob.model_validate(fields)


def test_an_evaluation_asks_every_choice_and_tells_of_it_by_task(tmp_path: Path, model: Path, release: Path) -> None:
    (report,) = evaluate(job(tmp_path, model, release, by=["letters", "texts", "generation"], minutes=[5]))
    assert (report.questions, report.videos, report.chance, report.unread) == (16, 4, 0.25, {})
    assert [(each.how, each.blind) for each in report.accuracies] == [
        (how, blind) for how in ("letters", "texts", "generation") for blind in (False, True)
    ]
    for each in report.accuracies:
        assert each.overall.asked == 16
        assert {task: share.asked for task, share in each.by_task.items()} == {
            "object_attribute": 8,
            "temporal_order": 8,
        }
        assert list(each.by_length) == ["up to 5 min"]
    text = (tmp_path / "report.md").read_text()
    assert "| temporal_order | 8 |" in text and "letters, blind" in text
    assert json.loads((tmp_path / "report.json").read_text())["reports"][0]["questions"] == 16


def test_an_evaluation_that_died_goes_on_and_ends_as_an_undisturbed_one(
    tmp_path: Path, model: Path, release: Path
) -> None:
    evaluate(job(tmp_path / "one", model, release, by=["letters"]))
    other = job(tmp_path / "two", model, release, by=["letters"])

    def die(what: str, done: int, of: int) -> None:
        if done >= of // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(other, die)
    (kept,) = (tmp_path / "two").glob("answers-*.jsonl")
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-7])  # the last line is torn
    asked: list[int] = []
    evaluate(other, lambda what, done, of: asked.append(done))
    assert not list((tmp_path / "two").glob(".*.part"))
    for name in ("report.md", "report.json"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


def test_a_video_that_cannot_be_read_is_counted_and_in_no_share(tmp_path: Path, model: Path) -> None:
    broken = released(tmp_path / "dataset", films(3, pairs=2), ReleaseSettings())
    # Its features are read, and of one video there are none.
    from marathon_pipeline.hour_llava.features import Cached, write_features

    features = examples(1, features=True)[0].features
    for number in range(2):
        write_features(Storage(str(tmp_path / "dataset")), f"yt_film-{number}", Cached(features, "f", "p"))
    (report,) = evaluate(job(tmp_path / "out", model, broken, features=True, by=["letters"], blind=False))
    assert (report.questions, sum(report.unread.values())) == (4, 2)
    assert "no_features" in next(iter(report.unread))
    assert report.accuracies[0].overall.asked == 4


def test_the_same_questions_are_taken_and_more_of_them_hold_the_fewer(
    tmp_path: Path, model: Path, release: Path
) -> None:
    def asked(most: int) -> set[str]:
        out = tmp_path / str(most)
        evaluate(job(out, model, release, questions_per_task=most, by=["letters"], blind=False))
        (kept,) = out.glob("answers-*.jsonl")
        return {json.loads(line)["qa_id"] for line in kept.read_text().splitlines()}

    assert len(asked(1)) == 2 and asked(1) < asked(3)


def test_needles_are_made_asked_and_drawn(tmp_path: Path, model: Path, marathon: Command) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(
        f"out: {tmp_path / 'out'}\nmodel: {model}\nby: [letters]\nneedles: {{minutes: [1, 2], videos: 1, height: 90}}\n"
        "minutes: [1.5]\ndepths: 4\n"
    )
    said = marathon("evaluate", path)
    assert "needles  letters, blind" in said and "of 8" in said
    report = json.loads((tmp_path / "out" / "report.json").read_text())["reports"][0]
    grid = report["accuracies"][0]["by_depth_and_length"]
    assert [[cell["asked"] for cell in row] for row in grid] == [[1, 1]] * 4  # a card in each quarter of each length
    assert report["lengths"] == ["up to 1.5 min", "over 1.5 min"]
    assert (tmp_path / "out" / "needles.png").read_bytes().startswith(b"\x89PNG")
    (others,) = evaluate(load_evaluate_job(str(path), ["needles.minutes=[1]", "needles.cards=2"]))  # beside the first
    assert others.questions == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("out: x\nmodel: m\n", "neither `releases` nor `needles`"),
        ("out: x\nmodel: m\nreleases: [r]\nbye: 1\n", "bye: no such setting"),
        ("out: x\nmodel: m\nneedles: {seconds: [5, 2]}\n", "give the shortest first"),
        ("out: x\nmodel: m\nneedles: {minutes: [0]}\n", "give one length or more"),
        ("out: x\nmodel: m\nreleases: [r]\nminutes: [9, 5]\n", "ascending order"),
        ("model: m\nreleases: [r]\n", "out: "),
    ],
)
def test_a_wrong_setting_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        load_evaluate_job(str(path), [])
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_model_or_a_release_that_is_not_there_is_said_in_one_line(tmp_path: Path, model: Path, release: Path) -> None:
    with pytest.raises(UserError, match=r"model: no model in .*none; give the folder"):
        evaluate(job(tmp_path / "out", tmp_path / "none", release))
    with pytest.raises(UserError, match="no release there"):
        evaluate(job(tmp_path / "out", model, tmp_path / "none"))
    with pytest.raises(UserError, match="of the split test"):
        evaluate(job(tmp_path / "out", model, release, split="test"))


def test_the_page_lists_every_setting_and_the_shipped_job_is_right() -> None:
    page = (Path(__file__).parent.parent / "docs" / "evaluation.md").read_text()
    for name in [*EvaluateJob.model_fields, *(f"needles.{name}" for name in CardSettings.model_fields)]:
        assert f"`{name}`" in page, name
    assert load_evaluate_job("jobs/evaluate-tiny.yaml", []).needles is not None


class Instance(types.SimpleNamespace):
    """As lmms-eval's: `args` are its arguments."""


@pytest.fixture
def hour_llava(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The adapter, over the real lmms-eval where it is installed, else over its documented interface."""
    try:
        import lmms_eval.api.model  # noqa: F401
    except ImportError:
        _stand_in(monkeypatch)
    monkeypatch.delitem(sys.modules, "marathon_pipeline.hour_llava.evaluation.lmms_model", raising=False)
    from marathon_pipeline.hour_llava.evaluation import lmms_model

    return lmms_model


def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    import abc
    from dataclasses import dataclass

    class Lmms(abc.ABC):
        is_simple = True

        def __init__(self) -> None:
            self._rank, self._world_size, self.task_dict = 0, 1, {}
            self.cache_hook = types.SimpleNamespace(add_partial=lambda *_: None)

        rank = property(lambda self: self._rank)
        world_size = property(lambda self: self._world_size)

        @abc.abstractmethod
        def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]: ...
        @abc.abstractmethod
        def generate_until(self, requests: list[Any]) -> list[str]: ...
        @abc.abstractmethod
        def generate_until_multi_round(self, requests: list[Any]) -> list[str]: ...
        @classmethod
        def create_from_arg_string(cls, arguments: str, more: dict[str, Any] | None = None) -> Any:
            given = dict(each.split("=", 1) for each in arguments.split(","))
            return cls(**given, **{name: value for name, value in (more or {}).items() if value is not None})

    @dataclass(frozen=True)
    class ModelManifest:
        model_id: str
        simple_class_path: str | None = None
        chat_class_path: str | None = None
        aliases: tuple[str, ...] = ()

    modules = {
        "lmms_eval": {},
        "lmms_eval.api": {},
        "lmms_eval.api.model": {"lmms": Lmms},
        "lmms_eval.models": {},
        "lmms_eval.models.registry_v2": {"ModelManifest": ModelManifest},
    }
    for name, holds in modules.items():
        module = types.ModuleType(name)
        vars(module).update(holds)
        monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def film(tmp_path: Path) -> Path:
    from small_releases import proxy

    path = tmp_path / "film.mp4"
    path.write_bytes(proxy(5))
    return path


def test_lmms_eval_finds_the_model_by_its_manifest_and_gets_an_answer_for_each_request(
    hour_llava: Any, model: Path, film: Path
) -> None:
    told = hour_llava.manifest()
    assert told.model_id == "hour_llava"
    module, _, name = told.simple_class_path.rpartition(".")
    adapter = getattr(sys.modules[module], name).create_from_arg_string(
        f"pretrained={model},dtype=float32,min_frames=8", {"batch_size": 1, "max_batch_size": None, "device": "cpu"}
    )
    assert adapter.is_simple and (adapter.rank, adapter.world_size) == (0, 1)
    adapter.task_dict["mlvu_dev"] = {"test": [{"video": str(film), "answer": "A"}]}

    def visual(doc: dict[str, str]) -> list[str]:
        return [doc["video"]]

    asked = ("<image>\nWhich?\nA. one\nB. two", {"max_new_tokens": 4, "until": ["\n\n"]}, visual, 0, "mlvu_dev", "test")
    said = adapter.generate_until([Instance(args=asked), Instance(args=asked)])
    assert len(said) == 2 and said[0] == said[1] and isinstance(said[0], str)
    targets: list[Any] = ["A", lambda doc: doc["answer"], "B"]
    found = adapter.loglikelihood(
        [Instance(args=("Which?", target, visual, 0, "mlvu_dev", "test")) for target in targets]
    )
    assert found[0] == found[1] != found[2]
    assert all(isinstance(score, float) and score < 0 and isinstance(greedy, bool) for score, greedy in found)


def test_short_videos_are_sampled_faster_and_long_ones_each_second(hour_llava: Any, film: Path) -> None:
    for least, expected in ((1, 5), (20, 20)):
        frames = torch.cat(list(hour_llava.sampled(str(film), 16, least)))
        assert frames.shape == (expected, 3, 16, 16) and frames.dtype == torch.uint8
    luma = [float(frame.float().mean()) for frame in torch.cat(list(hour_llava.sampled(str(film), 16, 1)))]
    assert luma == sorted(luma)  # each second of the film is brighter than the one before


def test_what_is_no_single_video_is_an_error_that_names_the_request(hour_llava: Any, model: Path) -> None:
    adapter = hour_llava.HourLlava(pretrained=str(model), device="cpu", dtype="float32")
    adapter.task_dict["t"] = {"test": [{}]}
    for visuals in ([], [object()], ["a", "b"]):
        request = Instance(args=("Which?", {}, lambda doc, visuals=visuals: visuals, 0, "t", "test"))
        with pytest.raises(ValueError, match="t 0: hour_llava takes one video file"):
            adapter.generate_until([request])
    with pytest.raises(ValueError, match="batch_size 4"):
        hour_llava.HourLlava(pretrained=str(model), batch_size=4)


@pytest.mark.slow
def test_the_demo_trains_asks_and_reports_and_does_nothing_twice(tmp_path: Path) -> None:
    from marathon_pipeline.hour_llava.evaluation.demo import main

    small = ["--seeds", "1", "--steps", "3", "--batch", "4", "--videos", "6", "--held-out", "4", "--processes", "1"]
    main([str(tmp_path), *small])
    report = json.loads((tmp_path / "report.json").read_text())
    assert set(report["variants"]) == {"memaug", "forgetting", "sampling"} and report["chance"] == 0.25
    assert all(each["all"]["asked"] == 4 for each in report["variants"].values())
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    models = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/s3/model/*")}
    main([str(tmp_path), *small])
    assert models == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/s3/model/*")}
    assert json.loads((tmp_path / "report.json").read_text())["variants"] == report["variants"]


def test_all_variants_of_the_demo_give_the_language_model_as_many_tokens(tmp_path: Path) -> None:
    from marathon_pipeline.hour_llava.configuration import HourLlavaConfig
    from marathon_pipeline.hour_llava.evaluation.demo import FRAMES, SIDE, VARIANTS, train_job
    from marathon_pipeline.hour_llava.selection import select

    lengths = set()
    for variant in VARIANTS:
        settings = train_job(tmp_path, tmp_path, variant, 0, 1, 1).model
        config = HourLlavaConfig(media_token_id=0, **settings.config())
        assert config.pooled_side == SIDE
        lengths.add(tuple(select(config, [FRAMES], [0]).decayed.lengths))
    assert lengths == {(90,)}
