"""A stand-in for a model that judges: told what the script says, it errs as often as it is told to.

No model is asked here. It answers by the rule of the test server's judge (`served.judge`): right is what stands in the
notes word for word. For the notes it is given the answers that the script bears out, whatever the captions say; what
it is planted with to be calibrated it reads from the captions, as every judge does.
"""

import dataclasses
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from by_hand import ByHand, annotator, reply, settings
from served import answers, judge
from stage_rows import rows_of

from marathon_pipeline.annotators.served.pool import Reply, Request, body_of
from marathon_pipeline.audit.calibration import in_force
from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.gates import Gates
from marathon_pipeline.records import Calibration, Outcome, QAPair, Verdict
from marathon_pipeline.stages.calibrate import Calibrate
from marathon_pipeline.stages.judging import JudgeSettings
from marathon_pipeline.stages.verify import Verify
from marathon_pipeline.taxonomy import TASK_IDS, load_taxonomy
from planted.clean import Rows

TAXONOMY = load_taxonomy()
_QUESTION = "\nQuestion: "


class Errors(NamedTuple):
    """Shares of the right answers that it does not accept, and of the definite and vague wrong ones that it does.

    None of them: it tosses a coin.
    """

    name: str
    rates: Mapping[str, float] | None


JUDGES = (
    Errors("one that errs nowhere", {}),
    Errors("one that errs by 5 % and 10 %", {"miss": 0.05, "specific": 0.1, "vague": 0.1}),
    Errors("one that errs by 15 % and 30 %", {"miss": 0.15, "specific": 0.3, "vague": 0.3}),
    Errors("a coin", None),
)


class StandIn:
    """Judges the pairs of videos, and is calibrated on them."""

    def __init__(self, errors: Errors, calibrate: float = 0.1) -> None:
        """calibrate: the share of the pairs. Blind answers, for which the shipped gates reject none, in one order."""
        self._sender, self._settings = _Sender(errors.rates), JudgeSettings(orders=1, calibrate=calibrate)
        self._tallies: defaultdict[str, int] = defaultdict(int)

    def verdicts(self, rows: Rows, pairs: Sequence[QAPair], true: Iterable[QAPair]) -> list[Verdict]:
        """true: of the pairs that the script bears out, by whose questions the answers are known."""
        self._sender.known = defaultdict(list)
        for pair in true:
            self._sender.known[pair.question, frozenset(pair.options)].append(pair.answer)
        found = self._rows(Verify(TAXONOMY, TASK_IDS, annotator(self._sender), self._settings), {**rows, QAPair: pairs})
        return [row for row in found if isinstance(row, Verdict)]

    def calibrate(self, rows: Rows) -> None:
        self._sender.known = None
        for row in self._rows(Calibrate(annotator(self._sender), TAXONOMY, TASK_IDS, self._settings), rows):
            assert isinstance(row, Calibration)
            self._tallies[f"{row.measure} {row.planted}"] += 1
            self._tallies[f"{row.measure} {row.planted} accepted"] += row.accepted

    def in_force(self, gates: Gates) -> Gates:
        """As far as they count with this judge."""
        with TemporaryDirectory() as folder:
            ledger = Dataset(folder, create=True).ledger
            said: dict[str, Any] = {"video_id": "v", "status": "ok", "fingerprint": "f", "judge": "stand-in"}
            calibrated = Outcome(stage="calibrate", tallies=dict(self._tallies), **said)
            ledger.append([Outcome(stage="verify", **said), calibrated])
            return in_force(gates, ledger)

    @staticmethod
    def _rows(stage: Any, rows: Rows) -> list[Any]:
        with TemporaryDirectory() as folder:
            return rows_of(stage, rows, Storage(folder))


class _Sender(ByHand):
    """In the place of a server. `known`: the true answers to what is asked; None: it reads the notes."""

    def __init__(self, rates: Mapping[str, float] | None) -> None:
        super().__init__()
        self._rates = rates
        self.known: defaultdict[tuple[str, frozenset[str]], list[str]] | None = None

    async def send(self, request: Request, *_: Any) -> Reply:
        asked = answers.asked(body_of(request, settings()))
        if self._rates is None:
            return reply(json.dumps(answers.answer(asked)))
        if self.known is not None and asked.name != "blind_answer":
            _, _, question = asked.user.rpartition(_QUESTION)
            options = judge.options_in(question) if asked.name == "grounded_answer" else {}
            true = self.known.get((question.splitlines()[0], frozenset(options.values())), ())
            asked = dataclasses.replace(asked, user="\n".join([*true, _QUESTION[1:] + question]))
        return reply(json.dumps(judge.answer(asked, self._rates)))
