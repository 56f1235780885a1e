import re
import shutil
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from marathon_pipeline.errors import UserError
from marathon_pipeline.records import ClipCaption, Event, digest
from marathon_pipeline.shipped import shipped
from marathon_pipeline.taxonomy import (
    CAPTION_VARIABLES,
    TASK_IDS,
    TOPICS,
    Problem,
    Taxonomy,
    check_taxonomy,
    load_taxonomy,
)

ORDER = "qa/temporality/temporal_order.yaml"
SHORT = {
    "temporal_perception",
    "spatial_perception",
    "object_recognition",
    "object_attribute",
    "object_interaction",
    "action_recognition",
    "scene_recognition",
}


@pytest.fixture(scope="module")
def taxonomy() -> Taxonomy:
    return load_taxonomy()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(shipped("task_templates"), tmp_path / "task_templates")


def rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def the_problem(folder: Path) -> Problem:
    problems = check_taxonomy(folder)
    assert len(problems) == 1, problems
    return problems[0]


def test_the_shipped_templates_have_no_problem() -> None:
    assert check_taxonomy() == []


def test_the_22_tasks_come_in_published_order_under_their_six_topics(taxonomy: Taxonomy) -> None:
    assert tuple(taxonomy.tasks) == TASK_IDS and len(TASK_IDS) == 22
    assert [len(taxonomy.of_topic(topic)) for topic in TOPICS] == [5, 2, 6, 4, 2, 3]
    assert {task.task for task in taxonomy.tasks.values() if task.form == "short"} == SHORT
    assert sum(topic.share for topic in TOPICS.values()) == pytest.approx(1)


def test_every_task_asks_for_three_of_each_format_and_the_summary_for_one_open_question(taxonomy: Taxonomy) -> None:
    counts = {task.task: (task.per_video.open, task.per_video.choice) for task in taxonomy.tasks.values()}
    assert counts.pop("overall_summarization") == (1, 0)
    assert set(counts.values()) == {(3, 3)}


def test_long_form_demonstrations_rest_on_several_moments_and_short_form_ones_on_one(taxonomy: Taxonomy) -> None:
    for task in taxonomy.tasks.values():
        for shown in task.demonstrations if task.task != "overall_summarization" else ():
            assert len(shown.evidence) == 1 if task.form == "short" else len(shown.evidence) > 1, shown.question


def test_options_of_demonstrations_do_not_give_the_answer_away_by_length(taxonomy: Taxonomy) -> None:
    for task in taxonomy.tasks.values():
        for shown in (shown for shown in task.demonstrations if shown.format == "choice"):
            lengths = sorted(len(option) for option in shown.options)
            assert lengths[-1] <= max(1.6 * lengths[0], lengths[0] + 12), shown.options
    marked = [shown for task in taxonomy.tasks.values() for shown in task.demonstrations if shown.options]
    longest = sum(len(shown.answer) > max(len(o) for o in shown.options if o != shown.answer) for shown in marked)
    assert longest <= len(marked) / 3


def test_tasks_of_one_topic_read_the_same_so_that_a_server_computes_their_captions_once(taxonomy: Taxonomy) -> None:
    for topic in TOPICS:
        prompted = [task for task in taxonomy.of_topic(topic) if task.task != "overall_summarization"]
        assert len({task.reads for task in prompted}) == 1, topic


def test_no_question_of_a_demonstration_is_shown_twice(taxonomy: Taxonomy) -> None:
    questions = [shown.question for task in taxonomy.tasks.values() for shown in task.demonstrations]
    assert len(questions) == len(set(questions))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("What happens in the first Clip?", ("clip",)),
        ("Which of the clip's persons is tallest?", ("clip",)),
        ("What does the text mention about the frames?", ("frames", "the text")),
        ("What does the text on the sign say?", ()),
        ("Who hangs the picture frame and puts on the hair clip?", ()),
        ("Which picture frame is in this frame?", ("frame",)),
        ("Is the eclipse framed by the segmented window?", ()),
        ("As  described\nin it, who waits?", ("as described",)),
    ],
)
def test_pipeline_vocabulary_is_found_as_whole_words_and_ordinary_uses_are_let_through(
    taxonomy: Taxonomy, text: str, found: tuple[str, ...]
) -> None:
    assert taxonomy.rules.forbidden_in(text) == found


@settings(max_examples=100, deadline=None)
@given(st.text())
def test_any_text_can_be_searched_for_pipeline_vocabulary(taxonomy: Taxonomy, text: str) -> None:
    rules = taxonomy.rules
    assert set(rules.forbidden_in(text)) <= set(rules.forbidden)
    assert "clip" in rules.forbidden_in(f"{text} clip")


def test_comments_and_layout_do_not_count_but_one_word_of_the_instructions_does(folder: Path) -> None:
    def fingerprints() -> dict[str, str]:
        taxonomy = load_taxonomy(folder)
        return {task: digest(taxonomy.task_rules(task)) for task in taxonomy.tasks}

    before = fingerprints()
    path = folder / ORDER
    path.write_text("# mended by a person\n\n" + path.read_text() + "\n\n# the end\n")
    assert fingerprints() == before
    rewrite(path, "instructions: |\n", "instructions: |\n  Prefer questions that span ten minutes.\n")
    after = fingerprints()
    assert {task for task in before if before[task] != after[task]} == {"temporal_order"}


def test_a_rule_for_all_tasks_changes_every_fingerprint_and_no_caption_template(folder: Path) -> None:
    before = load_taxonomy(folder)
    rewrite(folder / "qa/rules.yaml", "general: |\n", "general: |\n  Be brief.\n")
    after = load_taxonomy(folder)
    assert all(before.task_rules(task) != after.task_rules(task) for task in TASK_IDS)
    assert all(before.captions[n].rendered_rules() == after.captions[n].rendered_rules() for n in CAPTION_VARIABLES)


def test_an_example_value_of_a_caption_template_is_no_part_of_its_fingerprint(folder: Path) -> None:
    before = load_taxonomy(folder).captions["global"].rendered_rules()
    rewrite(folder / "captions/global.yaml", "five carrots", "six carrots")
    assert load_taxonomy(folder).captions["global"].rendered_rules() == before
    rewrite(folder / "captions/global.yaml", "No opinion", "No opinions")
    assert load_taxonomy(folder).captions["global"].rendered_rules() != before


BINDING = {"annotator": "a", "template_version": 1, "request": ""}


def test_caption_templates_render_the_records_that_annotators_hold(taxonomy: Taxonomy) -> None:
    texts = dict.fromkeys(("temporality", "spatiality", "object", "action", "scene", "summary"), "A man waits.")
    caption = ClipCaption.model_validate(
        {"video_id": "v", "clip_id": "c0003", "start": 60, "end": 90.4, "binding": BINDING, **texts}
    )
    event = Event.model_validate(
        {"video_id": "v", "event_id": "e0", "start": 3600, "end": 3725, "title": "The wait", "caption": "He waits."}
        | {"clip_ids": ["c0003"], "binding": BINDING}
    )
    captions = taxonomy.captions
    assert "c0003 (1:00 to 1:30)" in captions["event_split"].render(captions=[caption])[1]
    prompt = captions["event"].render(event=event, before=None, after=event, captions=[caption])[1]
    assert "The wait (1:00:00 to 1:02:05)" in prompt and "Before it" not in prompt and "After it" in prompt
    assert "1. The wait" in captions["global"].render(events=[event])[1]


def test_a_caption_template_given_the_wrong_values_is_a_user_error(taxonomy: Taxonomy) -> None:
    with pytest.raises(UserError, match=r"captions/global.yaml: prompt: .*title"):
        taxonomy.captions["global"].render(events=[{"start": 0}])


@pytest.mark.parametrize(
    ("file", "old", "new", "key", "says"),
    [
        (ORDER, "asks:", "ask:", "asks", "missing"),
        (ORDER, "reads: [", "reads: [sound, ", "reads #1", "sound"),
        (ORDER, "reads: [temporality, action, global]", "reads: action", "reads", "list"),
        (ORDER, "version: 1", "version: one", "version", "whole number"),
        (ORDER, "{open: 3", "{open: three", "per_video open", "whole number"),
        (ORDER, "task: temporal_order", "task: temporal_orders", "task", "none of the 22"),
        (ORDER, "topic: temporality", "topic: action", "topic", "not the published"),
        (ORDER, "topic: temporality", "topic: time", "topic", "not known"),
        (ORDER, "name: Temporal Order", "name: Order", "name", "not the published"),
        (ORDER, "format: open", "format: choice", "demonstrations #1 options", "four"),
        (ORDER, "answer: Feeds the cat", "answer: Feeds a cat", "demonstrations #2 answer", "not among"),
        (ORDER, "evidence: [c0014", "evidence: [c0099", "demonstrations #1 evidence", "c0099"),
        (ORDER, "answer: Before.", "answer: In the first clip.", "demonstrations #1 answer", "clip"),
        (ORDER, "wrong_options: |", "wrong_options: |\ninstructions: |", "line 16", "twice"),
        ("qa/rules.yaml", "version: 1", "version: 0", "version", "too small"),
        ("qa/rules.yaml", "- clips", '- "!"', "forbidden #2", "no word"),
        ("qa/rules.yaml", "general: |", "general:\n\tx", "line 5", ""),
        ("captions/clip.yaml", "{% endif %}", "", "prompt", "line"),
        ("captions/clip.yaml", "clip.start", "klip.start", "prompt", "klip"),
        ("captions/clip.yaml", "clip.start", "clip.begin", "prompt", "begin"),
        ("captions/clip.yaml", "clip.start | clock", "clip.start | watch", "prompt", "watch"),
        ("captions/clip.yaml", "variables:\n", "variables:\n  sound: loud\n", "variables", "sound"),
        ("captions/clip.yaml", "{{ times | length }}", "{{ ().__class__.__mro__ }}", "prompt", "unsafe"),
    ],
)
def test_a_mistake_is_named_with_its_file_and_key_and_how_to_mend_it(
    folder: Path, file: str, old: str, new: str, key: str, says: str
) -> None:
    rewrite(folder / file, old, new)
    problems = check_taxonomy(folder)
    assert {problem.file for problem in problems} == {file}
    assert any(p.key == key and says in f"{p.problem} {p.mend}" for p in problems), problems
    assert all(p.mend and "\n" not in str(p) for p in problems)
    with pytest.raises(UserError, match=re.escape(file)) as error:
        load_taxonomy(folder)
    assert "\n" not in str(error.value)


def test_three_equal_options_and_a_missing_kind_of_demonstration_are_named(folder: Path) -> None:
    path = folder / "qa/object/object_recognition.yaml"
    rewrite(path, "- A motorcycle\n", "- a lorry\n")
    assert "distinct" in the_problem(folder).problem
    data = yaml.safe_load((shipped("task_templates") / "qa/object/object_recognition.yaml").read_text())
    data["demonstrations"] = data["demonstrations"][:1]
    path.write_text(yaml.safe_dump(data))
    assert the_problem(folder)[1:3] == ("demonstrations", "hold none of format choice")


def test_a_task_without_wrong_options_is_named(folder: Path) -> None:
    path = folder / "qa/object/object_recognition.yaml"
    data = yaml.safe_load(path.read_text())
    del data["wrong_options"]
    path.write_text(yaml.safe_dump(data))
    assert the_problem(folder).key == "wrong_options"


def test_a_missing_task_is_named(folder: Path) -> None:
    (folder / ORDER).unlink()
    assert the_problem(folder)[:3] == (ORDER, "the file", "is missing")


def test_a_task_under_the_wrong_topic_is_told_where_to_go(folder: Path) -> None:
    (folder / ORDER).rename(folder / "qa/action/temporal_order.yaml")
    problem = the_problem(folder)
    assert problem.file == "qa/action/temporal_order.yaml" and ORDER in problem.mend


def test_a_copy_of_a_task_under_another_task_s_name_is_a_duplicate(folder: Path) -> None:
    shutil.copy(folder / ORDER, folder / "qa/action/action_sequence.yaml")
    problem = the_problem(folder)
    assert problem.file == "qa/action/action_sequence.yaml" and "temporal_order" in problem.problem


def test_a_file_that_nothing_reads_is_named(folder: Path) -> None:
    shutil.copy(folder / ORDER, folder / "qa/temporality/temporal_orders.yaml")
    problem = the_problem(folder)
    assert problem.file.endswith("temporal_orders.yaml") and "temporal_order`" in problem.mend


def test_an_empty_folder_and_a_missing_one_have_every_file_missing(tmp_path: Path) -> None:
    for empty in (tmp_path, tmp_path / "nowhere"):
        assert len(check_taxonomy(empty)) == 22 + len(CAPTION_VARIABLES) + 4


def test_options_that_yaml_takes_for_other_things_stay_as_they_are_written(folder: Path) -> None:
    path = folder / "qa/object/object_recognition.yaml"
    text = path.read_text()
    for old, new in (("- A tractor", "- no"), ("- A lorry", "- 1:30"), ("answer: A tractor", "answer: no")):
        text = text.replace(old, new)
    path.write_text(text)
    shown = load_taxonomy(folder).task("object_recognition").demonstrations[1]
    assert shown.options[:2] == ("no", "1:30") and shown.answer == "no"


def test_an_unknown_task_is_refused_with_the_nearest_name(taxonomy: Taxonomy) -> None:
    with pytest.raises(UserError, match="temporal_order"):
        taxonomy.task("temporal-order")


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three of the files only, so that a check is quick."""
    folder = tmp_path_factory.mktemp("broken")
    for file in (ORDER, "captions/clip.yaml", "qa/rules.yaml"):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(shipped("task_templates") / file, folder / file)
    return folder


def assert_what_is_wrong_is_said(folder: Path, file: str, content: bytes, *, broken: bool) -> None:
    path = folder / file
    whole = path.read_bytes()
    try:
        path.write_bytes(content)
        problems = [
            problem for problem in check_taxonomy(folder) if problem.problem != "is missing" or problem.file == file
        ]
    finally:
        path.write_bytes(whole)
    assert problems or not broken
    for problem in problems:
        assert problem.file == file and problem.key and problem.problem and problem.mend
        assert str(problem).encode() and "\n" not in str(problem)


SNIPPETS = [
    "{",
    "}",
    "[",
    "]",
    ": ",
    "- ",
    "\n",
    "\t",
    "'",
    '"',
    "|",
    "&a ",
    "*a",
    "!!int ",
    "%",
    "{{",
    "{% for",
    "\0",
    "#",
]


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([ORDER, "captions/clip.yaml"]),
    st.floats(0, 1),
    st.floats(0, 0.2),
    st.one_of(st.sampled_from(SNIPPETS).map(str.encode), st.binary(max_size=8)),
)
def test_a_damaged_template_is_a_problem_or_still_sound_and_never_a_traceback(
    scratch: Path, file: str, where: float, cut: float, insert: bytes
) -> None:
    whole = (shipped("task_templates") / file).read_bytes()
    start = int(where * len(whole))
    content = whole[:start] + insert + whole[start + int(cut * len(whole)) :]
    assert_what_is_wrong_is_said(scratch, file, content, broken=False)


trees = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.dates()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.text(max_size=5), st.sampled_from(["task", "reads", "demonstrations"])), inner),
    ),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([ORDER, "captions/clip.yaml", "qa/rules.yaml"]), trees)
def test_any_other_yaml_in_a_template_s_place_is_a_problem(scratch: Path, file: str, tree: object) -> None:
    content = yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass")
    assert_what_is_wrong_is_said(scratch, file, content, broken=True)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"task: \x07",
        b'task: "\\ud800"',
        b"[" * 5000,
        b"a: &a [*a]",
        b"? [x]\n: y",
        b"!!timestamp nonsense",
        b"!!python/object/apply:os.system [echo]",
        b"--- a\n--- b",
    ],
)
def test_hostile_yaml_is_a_problem(scratch: Path, content: bytes) -> None:
    assert_what_is_wrong_is_said(scratch, ORDER, content, broken=True)


def test_a_folder_in_a_template_s_place_is_a_problem(folder: Path) -> None:
    (folder / ORDER).unlink()
    (folder / ORDER).mkdir()
    assert the_problem(folder).file == ORDER
