"""Licences: what a release leaves out for them, how it says so, and files of rules that are none."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from test_release import SETTINGS, SOURCES, TASKS, TAXONOMY, build, hashes, proxy, samples, video_of

from marathon_pipeline.config import load_job, parse_job
from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.errors import UserError
from marathon_pipeline.gates import Gates
from marathon_pipeline.licences import Licences, load_licences
from marathon_pipeline.publish import conclude, licences_of, rules_of
from marathon_pipeline.release.plan import next_revision, planned_release
from marathon_pipeline.release.rules import ReleaseRules
from marathon_pipeline.release.write import write_release
from marathon_pipeline.shipped import shipped

__all__ = ["proxy"]  # a fixture of test_release
SHIPPED = load_licences(shipped("jobs/licences.yaml"))
_MODELS = "{model: '*', captions: true, qa: true, evidence: known}"
ALL = "media: true, captions: true, qa: true, evidence: stated"


@pytest.fixture
def dataset(tmp_path: Path, proxy: bytes) -> Dataset:
    return build(tmp_path / "out", proxy)


def rules(
    folder: Path, sources: str, models: str = "{model: '*', captions: true, qa: true, evidence: known}"
) -> Licences:
    path = folder / "licences.yaml"
    path.write_text(f"sources: [{sources}]\nmodels: [{models}]\n")
    return load_licences(path)


def released(dataset: Dataset, name: str, licences: Licences) -> tuple[Path, dict]:
    info = write_release(dataset, name, ReleaseRules(SETTINGS, TAXONOMY, Gates(), licences))
    return Path(info.url), json.loads((Path(info.url) / "release.json").read_text())


def test_what_a_sources_licence_forbids_is_left_out_and_counted(dataset: Dataset, tmp_path: Path) -> None:
    odd = "{data_source: 'odd*', captions: true, evidence: 'https://example.org/terms'}"
    folder, listed = released(dataset, "demo-1", rules(tmp_path, f"{odd}, {{{ALL}}}"))
    kept = {video_of(source) for source in SOURCES[:4]}
    assert {row["video_id"] for row in samples(folder)} == kept
    assert {row["video_id"] for row in samples(Path(dataset.url), "media/v1/*.tar")} == kept
    assert listed["captions"]["levels"] == {"clip": 12, "event": 6, "global": 6} and listed["videos"]["videos"] == 6
    assert all(listed["tasks"][task]["left_out"] == {"source_licence": 14} for task in TASKS)
    assert listed["licences"]["left_out"] == 2 and listed["licences"]["sources"][0]["videos"] == 2
    card = (folder / "README.md").read_text()
    assert r"| odd\* | \* | 2 | no | yes | no | https://example.org/terms |" in card
    assert r"| \* | yes | yes | known |" in card and "2 videos are\nnamed by URL" in card


def test_a_model_decides_on_what_it_wrote(dataset: Dataset, tmp_path: Path) -> None:
    folder, listed = released(
        dataset, "demo-1", rules(tmp_path, f"{{{ALL}}}", "{model: 'MEASURED/?', qa: true, evidence: known}")
    )
    assert listed["captions"] == {"levels": {}, "annotators": [], "left_out": {"model_licence": 24}}
    assert not (folder / "captions.parquet").exists()
    assert len(list(samples(folder))) == 6 * 2 * 7, "those that retell the video are captions, and left out with them"
    with pytest.raises(UserError, match="its licences forbid it"):
        released(dataset, "demo-2", rules(tmp_path, f"{{{ALL}}}", "{model: 'gpt*', qa: true, evidence: known}"))


@pytest.mark.parametrize("who", ["source", "model"])
def test_a_caption_that_may_not_be_released_does_not_stand_there_as_an_answer(
    who: str, dataset: Dataset, tmp_path: Path
) -> None:
    taxonomy = TAXONOMY.model_copy(deep=True)
    taxonomy.tasks["temporal_order"] = TAXONOMY.tasks["temporal_order"].model_copy(update={"reads": ("global",)})
    less = "qa: true, evidence: stated"
    forbidding = {"source": (f"{{{less}}}", _MODELS), "model": (f"{{{ALL}}}", f"{{model: '*', {less}}}")}[who]
    planned = {}
    for name, licences in (("demo-1", rules(tmp_path, f"{{{ALL}}}")), ("demo-2", rules(tmp_path, *forbidding))):
        info = write_release(dataset, name, held := ReleaseRules(SETTINGS, taxonomy, Gates(), licences))
        planned[name] = planned_release(dataset, held).parts
    folder = Path(info.url)
    listed = json.loads((folder / "release.json").read_text())
    assert {row["task"] for row in samples(folder)} == {"object_attribute"}
    for task in ("overall_summarization", "temporal_order"):
        assert listed["tasks"][task]["qa"] == 0 and listed["tasks"][task]["left_out"] == {f"{who}_licence": 42}
    assert "retells a whole video is a caption too" in (folder / "README.md").read_text()
    stale = {part for part, fingerprint in planned["demo-2"].items() if planned["demo-1"][part] != fingerprint}
    assert {"qa/overall_summarization", "qa/temporal_order"} <= stale, "a release made before is not up to date"


def test_a_source_of_which_nothing_is_allowed_is_not_even_named(dataset: Dataset, tmp_path: Path) -> None:
    folder, listed = released(dataset, "demo-1", rules(tmp_path, f"{{data_source: 'panda*', {ALL}}}"))
    assert listed["videos"]["videos"] == 4 and listed["licences"]["sources"][1] == {
        "rule": {"data_source": "*", "licence": "*", "local": None, "media": False, "captions": False, "qa": False}
        | {"evidence": "no rule names it"},
        "videos": 2,
    }
    assert all(video_of(s) not in (folder / "videos.parquet").read_bytes().decode("latin1") for s in SOURCES[4:])
    with pytest.raises(UserError, match=r"no licence lets anything be released; see docs/licences\.md"):
        released(dataset, "demo-2", Licences())


def test_the_card_tells_videos_without_media_from_those_that_are_not_in_it(dataset: Dataset, tmp_path: Path) -> None:
    dataset.write_sources([SOURCES[0].model_copy(update={"licence": "none"}), *SOURCES[1:]])
    less = "{licence: none, qa: true, evidence: stated}"
    some, seen = rules(tmp_path, f"{{data_source: 'odd*', evidence: stated}}, {less}, {{{ALL}}}"), set()
    for name, media in (("demo-1", True), ("demo-2", False)):
        settings = SETTINGS.model_copy(update={"media": media})
        write_release(
            dataset, name, ReleaseRules(settings, TAXONOMY, Gates(), some), progress=lambda *done: seen.add(done)
        )
    cards = [(Path(dataset.url) / "releases" / name / "README.md").read_text() for name in ("demo-1", "demo-2")]
    assert " 1 videos are\nnamed by URL and times alone; 2 more are left out altogether; captions" in cards[0]
    assert " All videos are\nnamed by URL and times alone; 2 more are left out altogether; captions" in cards[1]
    assert ("media", 3, 3) in seen and {total for part, _, total in seen if part == "media"} == {3}


def test_a_release_that_is_not_made_leaves_the_rest_of_what_a_run_says(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "none.yaml").write_text("sources: []")
    text = f"dataset: {dataset.url}\nlicences: {tmp_path}/none.yaml\nrelease: {{name: demo}}\naudit: null\n"
    config = parse_job(text, "job", [])
    with dataset.lease() as lease:
        ended = conclude(rules_of(config), dataset, Console(), lease)
    assert ended.failures == 1 and ended.summary[0].startswith("release  ")
    assert "no licence lets anything be released" in ended.summary[0]


def test_a_rule_that_changes_makes_a_new_revision_of_what_it_is_about(dataset: Dataset, tmp_path: Path) -> None:
    everything, less = rules(tmp_path, f"{{{ALL}}}"), rules(tmp_path, "{captions: true, qa: true, evidence: stated}")
    first, _ = released(dataset, "demo-1", everything)
    assert next_revision(dataset, "demo", ReleaseRules(SETTINGS, TAXONOMY, Gates(), everything)) == "demo-1"
    assert next_revision(dataset, "demo", ReleaseRules(SETTINGS, TAXONOMY, Gates(), less)) == "demo-2"
    second, listed = released(dataset, "demo-2", less)
    assert listed["media"] == "" and hashes(first / "qa") == hashes(second / "qa")
    told = rules(tmp_path, f"{{{ALL.replace('stated', 'elsewhere')}}}")
    assert next_revision(dataset, "demo", ReleaseRules(SETTINGS, TAXONOMY, Gates(), told)) == "demo-3", (
        "the card states the evidence"
    )


@pytest.mark.parametrize(
    ("data_source", "licence", "url", "media"),
    [
        ("synthetic", "CC0-1.0", "", True),
        ("panda-70m", "cc-by-4.0", "https://a.org", True),
        ("panda-70m", "CC BY-ND 4.0", "https://a.org", False),
        ("panda-70m", "CC BY ND 4.0", "https://a.org", False),
        ("panda-70m", "cc_by_nc_nd", "https://a.org", False),
        ("panda-70m", "CC-BY-ND-NC 1.0", "https://a.org", False),
        ("panda-70m", "CC BY NC 4.0", "https://a.org", True),
        ("panda-70m", "", "https://a.org", False),
        ("", "", "", True),
        ("", "All rights reserved", "", False),
        ("", "something", "https://a.org", False),
    ],
)
def test_the_shipped_rules_let_media_out_only_where_a_licence_does(
    data_source: str, licence: str, url: str, media: bool
) -> None:
    rule = SHIPPED.of_source(data_source, licence, url)
    assert (rule.media, rule.captions, rule.qa) == (media, True, True)
    assert SHIPPED.of_model("measured/4").qa and SHIPPED.of_model("deepseek-ai/DeepSeek-V3@abc").qa


@given(st.text(), st.text(), st.text())
def test_without_a_rule_nothing_is_allowed(data_source: str, licence: str, url: str) -> None:
    assert not Licences().of_source(data_source, licence, url).something
    assert not Licences().of_model(data_source).qa and not Licences().of_model(data_source).captions


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sources: [", "while parsing"),
        ("sauces: []", "sauces: Extra inputs"),
        ("sources: [{licence: CC0, medium: true, evidence: x}]", "sources #1 medium: Extra inputs"),
        ("sources: [{licence: CC0, media: true}]", "sources #1 evidence: Field required"),
        ("models: [{qa: true, evidence: x}]", "models #1 model: Field required"),
        ("models: [{model: a, media: true, evidence: x}]", "models #1 media: Extra inputs"),
    ],
)
def test_a_file_that_holds_no_rules_is_said_in_one_line(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "licences.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        licences_of(parse_job(f"dataset: out\nlicences: {path}\n", "job", []))
    assert said in str(error.value) and "docs/licences.md" in str(error.value) and "\n" not in str(error.value)


def test_the_demo_may_release_all_that_it_makes() -> None:
    rule = licences_of(load_job("jobs/demo.yaml", [])).of_source("synthetic", "CC0-1.0", "")
    assert rule.media and rule.captions and rule.qa
