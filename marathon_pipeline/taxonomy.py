"""The six topics and 22 tasks of VideoMarathon, and the caption templates, loaded from the files of `task_templates/`.

A file that a person got wrong becomes a `Problem` that says where and how to mend it, never a traceback.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from marathon_pipeline.errors import UserError
from marathon_pipeline.records import Format, JudgedMeasure
from marathon_pipeline.shipped import shipped
from marathon_pipeline.template_files import Problem, broken, did_you_mean, explained, load_yaml, of_rule

if TYPE_CHECKING:
    from jinja2 import Template
    from jinja2.sandbox import SandboxedEnvironment

_WORD = re.compile(r"[^\W_]+")
CaptionField = Literal["temporality", "spatiality", "object", "action", "scene", "summary", "event", "global"]
CaptionName = Literal["clip", "event_split", "event", "global"]
TopicName = Literal["temporality", "spatiality", "object", "action", "scene", "event"]


class Topic(NamedTuple):
    share: float  # of the published question-answer pairs (VideoMarathon, QA by topic)
    names: tuple[str, ...]  # of its tasks, in published order


TOPICS: dict[TopicName, Topic] = {
    "temporality": Topic(
        0.253,
        (
            "Temporal Perception",
            "Duration Perception",
            "Temporal Reasoning",
            "Temporal Gap Estimation",
            "Temporal Order",
        ),
    ),
    "spatiality": Topic(0.101, ("Spatial Perception", "Spatial Reasoning")),
    "object": Topic(
        0.302,
        (
            "Object Recognition",
            "Object Attribute",
            "Object Interaction",
            "Object Reasoning",
            "Object Existence",
            "Object Permanence",
        ),
    ),
    "action": Topic(0.201, ("Action Recognition", "Action Localization", "Action Sequence", "Action Reasoning")),
    "scene": Topic(0.067, ("Scene Recognition", "Scene Transition")),
    "event": Topic(0.076, ("Event Sequence", "Key Event Extraction", "Overall Summarization")),
}


class _Published(NamedTuple):
    topic: TopicName
    name: str


_PUBLISHED = {
    name.lower().replace(" ", "_"): _Published(topic, name) for topic, (_, names) in TOPICS.items() for name in names
}
TASK_IDS: tuple[str, ...] = tuple(_PUBLISHED)  # in published order

# What the annotators hand to each caption template: the arguments of the `Annotator` method of the same work.
CAPTION_VARIABLES: dict[CaptionName, frozenset[str]] = {
    "clip": frozenset({"clip", "times"}),  # times: of the frames shown, in seconds
    "event_split": frozenset({"captions"}),
    "event": frozenset({"event", "before", "after", "captions"}),  # before, after: an event, or None
    "global": frozenset({"events"}),
}
# And to the texts of `qa/prompt.yaml`.
QA_VARIABLES: dict[str, frozenset[str]] = {
    "notes": frozenset({"seconds", "summary", "fields", "before", "captions", "after", "events"}),
    "request": frozenset({"task", "format", "form", "count", "examples"}),
    "again": frozenset({"known"}),
}
# And to those of `verify/prompt.yaml`, and of `verify/plants.yaml`.
JUDGE_VARIABLES: dict[str, frozenset[str]] = {
    "notes": frozenset({"fields", "captions"}),
    "request": frozenset({"question", "options", "answer"}),
}
_PLANT = {"question": "What does she hold?", "answer": "A red cup"}
_QA_SYSTEM = {"rules": {"general": "Ask only what the notes say."}}


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True, str_min_length=1)


class _Template(_Part):
    """What one file holds."""

    @property
    def id(self) -> str:
        """The name of its file, without the ending."""
        raise NotImplementedError

    def rendered_rules(self) -> dict[str, object]:
        """All that this file says, for fingerprints: comments and layout do not count."""
        return self.model_dump(mode="json")


class Rules(_Template):
    """What holds for the questions of all tasks. A phrase of `forbidden` may stand within a phrase of `allowed`."""

    general: str
    open: str
    choice: str
    forbidden: tuple[str, ...]
    allowed: tuple[str, ...] = ()
    version: int = Field(ge=1)

    @property
    def id(self) -> str:
        return "rules"

    def forbidden_in(self, text: str) -> tuple[str, ...]:
        """The forbidden words and phrases that a text contains, as whole words, in any case."""
        forbidden, allowed = self._phrases
        if self._telling.isdisjoint(_WORD.findall(text.casefold())):
            return ()
        spaced = _spaced(text)
        for phrase in allowed:
            spaced = spaced.replace(phrase, "  |  ")
        return tuple(phrase for phrase, words in zip(self.forbidden, forbidden, strict=True) if words in spaced)

    @cached_property
    def _phrases(self) -> tuple[list[str], list[str]]:
        return [_spaced(phrase) for phrase in self.forbidden], [_spaced(phrase) for phrase in self.allowed]

    @cached_property
    def _telling(self) -> frozenset[str]:
        """The longest word of each forbidden phrase: most texts hold none of them."""
        return frozenset(max(phrase.split(), key=len) for phrase in self._phrases[0])

    @model_validator(mode="after")
    def _has_words_to_look_for(self) -> Self:
        for key, phrases in (("forbidden", self.forbidden), ("allowed", self.allowed)):
            for number, phrase in enumerate(phrases, start=1):
                if not _spaced(phrase).strip():
                    raise broken(f"{key} #{number}", f"`{phrase}` holds no word", "write a word, or delete the line")
        return self


class PerVideo(_Part):
    open: int = Field(ge=0)
    choice: int = Field(ge=0)


class Demonstration(_Part):
    """A worked example. `given`: clip id to what its caption says; `evidence`: the clips that the answer rests on."""

    format: Format
    given: dict[str, str] = {}
    question: str
    options: tuple[str, ...] = ()
    answer: str
    evidence: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _is_a_sound_example(self) -> Self:
        if self.format == "open" and self.options:
            raise broken("options", "an open question has none", "delete the options, or write `format: choice`")
        if self.format == "choice":
            if len({option.casefold() for option in self.options}) != 4 or len(self.options) != 4:
                raise broken("options", "are not four distinct ones", "write four options that differ")
            if self.answer not in self.options:
                raise broken("answer", "is not among the options", "copy the right option, letter by letter")
        if unknown := [clip for clip in self.evidence if clip not in self.given]:
            raise broken("evidence", f"names {unknown[0]}, which is not in `given`", "name clips that `given` shows")
        return self


class Task(_Template):
    """One of the 22 tasks, as its file under `qa/<topic>/` describes it."""

    task: str
    name: str
    topic: TopicName
    form: Literal["short", "long"]  # short: one moment answers it; long: it takes several
    asks: str
    reads: tuple[CaptionField, ...] = Field(min_length=1)
    per_video: PerVideo
    instructions: str
    wrong_options: str = ""  # absent where there are no choices
    demonstrations: tuple[Demonstration, ...]
    version: int = Field(ge=1)

    @property
    def id(self) -> str:
        return self.task

    @property
    def retells(self) -> bool:
        """Whether its answers are accounts of the whole video: its global caption, or what stands in its place."""
        return self.task == "overall_summarization" or self.reads == ("global",)

    @model_validator(mode="after")
    def _is_the_published_task(self) -> Self:
        published = _PUBLISHED.get(self.task)
        if published is None:
            raise broken("task", f"`{self.task}` is none of the 22 tasks", did_you_mean(self.task, TASK_IDS))
        for key, value, wanted in (("topic", self.topic, published.topic), ("name", self.name, published.name)):
            if value != wanted:
                raise broken(key, f"`{value}` is not the published {key} of {self.task}", f"write `{key}: {wanted}`")
        return self

    @model_validator(mode="after")
    def _shows_what_it_wants(self) -> Self:
        shown = {demonstration.format for demonstration in self.demonstrations}
        wanted: tuple[tuple[Format, int], ...] = (("open", self.per_video.open), ("choice", self.per_video.choice))
        for format, count in wanted:
            if count and format not in shown:
                raise broken("demonstrations", f"hold none of format {format}", "add one, or set its per_video to 0")
        if self.per_video.choice and not self.wrong_options:
            raise broken("wrong_options", "is missing", "say what makes a good wrong option for this task")
        return self


class CaptionTemplate(_Template):
    """The prompt for one kind of caption, in Jinja2. `variables`: what it is given, each with an example value."""

    caption: CaptionName
    asks: str
    variables: dict[str, JsonValue]
    system: str
    prompt: str
    version: int = Field(ge=1)

    @property
    def id(self) -> str:
        return self.caption

    @model_validator(mode="after")
    def _renders_its_examples(self) -> Self:
        _refuse_unknown("variables", self.variables, CAPTION_VARIABLES[self.caption])
        for key in ("system", "prompt"):
            _rendered(key, getattr(self, key), self.variables, self.variables)
        return self

    def rendered_rules(self) -> dict[str, object]:
        return self.model_dump(mode="json", include={"caption", "system", "prompt", "version"})

    def render(self, **values: object) -> tuple[str, str]:
        """The system text and the prompt for these values of the template's variables (`CAPTION_VARIABLES`)."""
        with _of_template(f"captions/{self.caption}.yaml"):
            return (
                _rendered("system", self.system, self.variables, values),
                _rendered("prompt", self.prompt, self.variables, values),
            )


class _Variables(_Part):
    notes: dict[str, JsonValue]
    request: dict[str, JsonValue]
    again: dict[str, JsonValue] = {}


class QAPrompt(_Template):
    """How the prompt for questions is put together, in Jinja2: what all tasks of a topic share stands in `notes`."""

    variables: _Variables
    system: str
    notes: str
    request: str
    again: str = ""  # behind the request, where others than the known ones are wanted; no part of the fingerprints
    version: int = Field(ge=1)

    @property
    def id(self) -> str:
        return "prompt"

    @model_validator(mode="after")
    def _renders_its_examples(self) -> Self:
        for key in QA_VARIABLES:
            examples = getattr(self.variables, key)
            _refuse_unknown(f"variables {key}", examples, QA_VARIABLES[key])
            _rendered(key, getattr(self, key), examples, examples)
        _rendered("system", self.system, _QA_SYSTEM, _QA_SYSTEM)
        return self

    def rendered_rules(self) -> dict[str, object]:
        return self.model_dump(mode="json", exclude={"variables", "again"})

    def render_system(self, rules: Rules) -> str:
        with _of_template("qa/prompt.yaml"):
            return _rendered("system", self.system, _QA_SYSTEM, {"rules": rules})

    def render_notes(self, **values: object) -> str:
        with _of_template("qa/prompt.yaml"):
            return _rendered("notes", self.notes, self.variables.notes, values)

    def render_request(self, **values: object) -> str:
        with _of_template("qa/prompt.yaml"):
            return _rendered("request", self.request, self.variables.request, values)

    def render_again(self, known: Sequence[str]) -> str:
        with _of_template("qa/prompt.yaml"):
            return _rendered("again", self.again, self.variables.again, {"known": known})


class JudgePrompt(_Template):
    """What a judge is asked of a QA pair, in Jinja2. `blind` is asked without `notes`, which the others share."""

    variables: _Variables
    system: str
    notes: str
    blind: str
    grounded: str
    judged: str
    version: int = Field(ge=1)

    @property
    def id(self) -> str:
        return "prompt"

    @model_validator(mode="after")
    def _renders_its_examples(self) -> Self:
        for part, keys in (("notes", ("notes",)), ("request", ("blind", "grounded", "judged"))):
            examples = getattr(self.variables, part)
            _refuse_unknown(f"variables {part}", examples, JUDGE_VARIABLES[part])
            for key in keys:
                _rendered(key, getattr(self, key), examples, examples)
        return self

    def rendered_rules(self) -> dict[str, object]:
        return self.model_dump(mode="json", exclude={"variables"})

    def render_notes(self, **values: object) -> str:
        with _of_template("verify/prompt.yaml"):
            return _rendered("notes", self.notes, self.variables.notes, values)

    def render_request(self, measure: JudgedMeasure, **values: object) -> str:
        with _of_template("verify/prompt.yaml"):
            return _rendered(measure, getattr(self, measure), self.variables.request, values)


class Plants(_Template):
    """What is planted to find out how often a judge errs. `stated` and `leaked` give an answer away, in Jinja2."""

    stated: str
    leaked: str
    vague: tuple[str, ...] = Field(min_length=1)
    version: int = Field(ge=1)

    @property
    def id(self) -> str:
        return "plants"

    @model_validator(mode="after")
    def _renders_its_examples(self) -> Self:
        for key in ("stated", "leaked"):
            _rendered(key, getattr(self, key), _PLANT, _PLANT)
        return self

    def render(self, key: Literal["stated", "leaked"], question: str, answer: str) -> str:
        with _of_template("verify/plants.yaml"):
            return _rendered(key, getattr(self, key), _PLANT, {"question": question, "answer": answer})


def _refuse_unknown(key: str, variables: Mapping[str, object], known: frozenset[str]) -> None:
    if unknown := sorted(set(variables) - known):
        given = ", ".join(sorted(known))
        raise broken(key, f"`{unknown[0]}` is not given to this template", f"it is given: {given}")


def _rendered(key: str, source: str, variables: Mapping[str, object], values: Mapping[str, object]) -> str:
    """A text of a template for these values. `variables`: those that it declares."""
    from jinja2 import TemplateSyntaxError

    try:
        template, used = _compiled(source)
        if not (undeclared := sorted(used - variables.keys())):
            return template.render(**values)
    except TemplateSyntaxError as error:
        raise broken(key, f"line {error.lineno}: {error.message}", "see Jinja's syntax for templates") from error
    except Exception as error:  # a template is a program: rendering it can raise anything
        mend = "give each variable an example of the shape that the template uses"
        raise broken(key, f"does not render: {type(error).__name__}: {error}", mend) from error
    raise broken(key, f"uses `{undeclared[0]}`, which is no variable", "add it under `variables`, or correct it")


@lru_cache(128)
def _compiled(source: str) -> "tuple[Template, set[str]]":
    """A text compiled, and the variables that it uses."""
    from jinja2 import meta

    return _jinja().from_string(source), meta.find_undeclared_variables(_jinja().parse(source)) - {*_jinja().globals}


@contextmanager
def _of_template(file: str) -> Iterator[None]:
    try:
        yield
    except PydanticCustomError as error:
        key = (error.context or {})["key"]
        raise UserError(f"{file}: {key}: {error.message()} (try `marathon tasks --check`)") from error


class Taxonomy(_Part):
    """All templates, complete and checked. `tasks` and `captions`: by id, tasks in published order."""

    rules: Rules
    prompt: QAPrompt
    judge: JudgePrompt
    plants: Plants
    tasks: dict[str, Task]
    captions: dict[CaptionName, CaptionTemplate]

    def task(self, task_id: str) -> Task:
        if task_id not in self.tasks:
            raise UserError(f"task `{task_id}` is none of the 22 ({did_you_mean(task_id, TASK_IDS)})")
        return self.tasks[task_id]

    def of_topic(self, topic: TopicName) -> tuple[Task, ...]:
        return tuple(task for task in self.tasks.values() if task.topic == topic)

    def task_rules(self, task_id: str) -> dict[str, object]:
        """All of the templates that decides a task's questions, for fingerprints."""
        return {
            "task": self.task(task_id).rendered_rules(),
            "rules": self.rules.rendered_rules(),
            "prompt": self.prompt.rendered_rules(),
        }


def load_taxonomy(folder: Path | None = None) -> Taxonomy:
    """The templates of a folder (default: the shipped ones); `UserError` where `check_taxonomy` finds a problem."""
    folder = folder or shipped("task_templates")
    taxonomy, problems = _read(folder)
    if taxonomy is None:
        more = f"; {len(problems) - 1} more: run `marathon tasks --check`" if len(problems) > 1 else ""
        raise UserError(f"{folder}/{problems[0]}{more}")
    return taxonomy


def check_taxonomy(folder: Path | None = None) -> list[Problem]:
    """Everything that is wrong with the templates of a folder (default: the shipped ones), by file."""
    return _read(folder or shipped("task_templates"))[1]


_Model = TypeVar("_Model", bound=_Template)


_SHARED_FILES = ("qa/rules.yaml", "qa/prompt.yaml", "verify/prompt.yaml", "verify/plants.yaml")


def _read(folder: Path) -> tuple[Taxonomy | None, list[Problem]]:
    """The taxonomy, or None and what is wrong, in order of the files."""
    problems: list[Problem] = []

    def read(file: str, model: type[_Model]) -> _Model | None:
        try:
            item = model.model_validate(load_yaml(folder / file))
        except ValidationError as error:
            problems.extend(Problem(file, *explained(found)) for found in error.errors(include_url=False))
        except PydanticCustomError as error:
            problems.append(Problem(file, *of_rule(error)))
        else:
            if item.id == Path(file).stem:
                return item
            wanted = f"write `{Path(file).stem}`, or name the file after it"
            problems.append(
                Problem(file, "the file", f"says that it is `{item.id}`, which has a file of its own", wanted)
            )
        return None

    caption_files: dict[CaptionName, str] = {name: f"captions/{name}.yaml" for name in CAPTION_VARIABLES}
    task_files = {task: f"qa/{topic}/{task}.yaml" for task, (topic, _) in _PUBLISHED.items()}
    strays = _strays(folder, {*_SHARED_FILES, *caption_files.values(), *task_files.values()})
    moved = {task for task, file in task_files.items() if task in strays and not (folder / file).exists()}
    problems.extend(strays.values())

    rules = read("qa/rules.yaml", Rules)
    prompt = read("qa/prompt.yaml", QAPrompt)
    judge, plants = read("verify/prompt.yaml", JudgePrompt), read("verify/plants.yaml", Plants)
    captions = {name: caption for name, file in caption_files.items() if (caption := read(file, CaptionTemplate))}
    tasks = {
        name: task for name, file in task_files.items() if name not in moved and (task := read(file, Task)) is not None
    }
    if rules:
        for name, task in tasks.items():
            problems.extend(Problem(task_files[name], *words) for words in _forbidden_words(task, rules))
    if rules is None or prompt is None or judge is None or plants is None or problems:
        return None, sorted(problems)
    return Taxonomy(rules=rules, prompt=prompt, judge=judge, plants=plants, tasks=tasks, captions=captions), []


def _strays(folder: Path, expected: set[str]) -> dict[str, Problem]:
    """Files that are no template's place, by name: nobody shall edit a file that nothing reads."""
    strays = {}
    for path in sorted(folder.rglob("*.y*ml")):
        file, published = path.relative_to(folder).as_posix(), _PUBLISHED.get(path.stem)
        if file in expected:
            continue
        if published:
            place = f"qa/{published.topic}/{path.stem}.yaml"
            strays[path.stem] = Problem(file, "the file", f"is not where {path.stem} is read", f"move it to {place}")
        else:
            mend = f"delete it; or {did_you_mean(path.stem, TASK_IDS)}"
            strays[path.stem] = Problem(file, "the file", f"`{path.stem}` is none of the 22 tasks", mend)
    return strays


def _forbidden_words(task: Task, rules: Rules) -> Iterator[tuple[str, str, str]]:
    for number, shown in enumerate(task.demonstrations, start=1):
        said = {"question": shown.question, "options": " | ".join(shown.options), "answer": shown.answer}
        for key, text in said.items():
            if found := rules.forbidden_in(text):
                yield f"demonstrations #{number} {key}", f"says `{found[0]}`", "say it as someone who watched the video"


def _spaced(text: str) -> str:
    """A text's words in small letters, each between two blanks of its own, so that phrases are found as whole words."""
    return f" {'  '.join(_WORD.findall(text.casefold()))} "


def clock(seconds: float | str) -> str:
    """A time of the video as a player shows it: `4:05`, `1:02:00`."""
    minutes, second = divmod(round(float(seconds)), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"


@cache
def _jinja() -> "SandboxedEnvironment":
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    environment.filters["clock"] = clock
    return environment
