"""`marathon evaluate`: puts the questions to the model, keeps each answer, and reports.

An answer is kept as it comes, so that a command that was killed goes on with the next question.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from pydantic import ValidationError
from transformers.utils.logging import disable_progress_bar

from marathon_pipeline.errors import Failed, UserError
from marathon_pipeline.hour_llava.evaluation.answering import Answerer
from marathon_pipeline.hour_llava.evaluation.needles import write_needles
from marathon_pipeline.hour_llava.evaluation.questions import Questions
from marathon_pipeline.hour_llava.evaluation.report import Report, write_reports
from marathon_pipeline.hour_llava.evaluation.settings import EvaluateJob, How, needles_of
from marathon_pipeline.hour_llava.evaluation.tally import Answer, accuracies, chance, lengths_of
from marathon_pipeline.hour_llava.processing import HourLlavaProcessor
from marathon_pipeline.hour_llava.training.build import Model, load
from marathon_pipeline.records import digest

Told = Callable[[str, int, int], object]  # what is under way, how much of it is done, and of how much


class _Set(NamedTuple):
    name: str
    questions: Questions


def evaluate(job: EvaluateJob, told: Told = lambda what, done, of: None) -> list[Report]:
    """Ask all that the job names, write `report.md`, `report.json` and the picture. Raises UserError, Failed."""
    out = Path(job.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out: {job.out} cannot be made ({error.strerror}); give a folder") from None
    model, processor = _loaded(job.model)
    gpu = torch.cuda.is_available() if job.gpu is None else job.gpu
    if gpu and not torch.cuda.is_available():
        raise UserError("gpu: none is found here; leave the setting out, or say `false`")
    model.to("cuda" if gpu else "cpu", torch.bfloat16 if job.precision == "bf16" else torch.float32)
    answerer = Answerer(model, processor, job.max_new_tokens)
    with torch.inference_mode():
        reports = [_report(job, own, answerer, out, told) for own in _sets(job, processor.image_side, told)]
    write_reports(out, job.model, reports)
    return reports


def _loaded(name: str) -> tuple[Model, HourLlavaProcessor]:
    is_path = Path(name).is_absolute() or name.startswith(".") or name.count("/") > 1  # no name of the Hub
    if is_path and not (Path(name) / "config.json").is_file():
        raise UserError(f"model: no model in {name}; give the folder of a trained one, such as out/train/s3/model")
    disable_progress_bar()
    return load(name)


def _sets(job: EvaluateJob, side: int, told: Told) -> Iterator[_Set]:
    if job.releases:
        how = {"features": job.features, "fingerprint": job.fingerprint}
        yield _Set("releases", Questions(job.releases, job.split, side=side, most=job.questions_per_task, **how))
    if job.needles is not None:
        made = write_needles(needles_of(job), [job.needles], lambda done, of: told("making needles", done, of))
        split = job.needles.split
        yield _Set("needles", Questions([str(made)], split, features=False, fingerprint="", side=side, most=None))


def _report(job: EvaluateJob, own: _Set, answerer: Answerer, out: Path, told: Told) -> Report:
    ways = [(how, blind) for how in job.by for blind in ((False, True) if job.blind else (False,))]
    kept = _Kept(out / f"answers-{own.name}-{_of(job, own)}.jsonl")
    every = len(own.questions.of)
    done = 0
    for video, questions in own.questions:
        left = [(each, *way) for each in questions for way in ways if (each.qa_id, *way) not in kept.answers]
        if left:
            try:
                features = answerer.features(video)
                new = [
                    Answer(
                        qa_id=each.qa_id,
                        how=how,
                        blind=blind,
                        letter=answerer.answer(each, how, video, features, blind=blind),
                    )
                    for each, how, blind in left
                ]
            except torch.OutOfMemoryError as error:
                raise Failed(
                    "memory",
                    f"the GPU's memory does not hold {video.video_id} ({str(error).partition('. ')[0]}); take "
                    "`precision: bf16` or a larger one",
                ) from None
            kept.add(new)
        done += len(questions)
        told(own.name, done, every)
    asked = {qa_id for qa_id, *_ in kept.answers}
    questions_asked = {qa_id: each for qa_id, each in own.questions.of.items() if qa_id in asked}
    if not questions_asked:
        raise UserError(f"{own.name}: not one video could be read; `marathon check` the release")
    in_order = [kept.answers[qa_id, *way] for way in ways for qa_id in sorted(asked) if (qa_id, *way) in kept.answers]
    return Report(
        name=own.name,
        questions=len(questions_asked),
        videos=len({each.video_id for each in questions_asked.values()}),
        chance=chance(questions_asked.values()),
        unread=dict(own.questions.unread),
        lengths=lengths_of(job.minutes),
        accuracies=accuracies(in_order, questions_asked, job.minutes, job.depths),
    )


def _of(job: EvaluateJob, own: _Set) -> str:
    """What answers follow from: the model as it lies there, and the settings; each question stands by its own id."""
    folder = Path(job.model)
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    model = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files if path.is_file()]
    settings = job.model_dump(mode="json", include={"features", "fingerprint", "max_new_tokens", "precision"})
    return digest([job.model, model, settings, own.name])[:12]


class _Kept:
    """Answers in a file, a line each; a line that a kill tore is asked again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.answers: dict[tuple[str, How, bool], Answer] = {}
        whole = 0
        data = path.read_bytes() if path.exists() else b""
        for line in data.splitlines(keepends=True):
            try:
                self._note(Answer.model_validate_json(line))
            except ValidationError:
                break
            if not line.endswith(b"\n"):
                break
            whole += len(line)
        if whole < len(data):
            with path.open("r+b") as file:
                file.truncate(whole)

    def add(self, answers: list[Answer]) -> None:
        with self._path.open("ab") as file:
            file.write(b"".join(answer.model_dump_json().encode() + b"\n" for answer in answers))
        for answer in answers:
            self._note(answer)

    def _note(self, answer: Answer) -> None:
        self.answers[answer.qa_id, answer.how, answer.blind] = answer
