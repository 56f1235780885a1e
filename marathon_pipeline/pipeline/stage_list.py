"""The stages, in the order in which a video goes through them."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from marathon_pipeline.annotators.protocol import Annotator, JudgingAnnotator
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.hour_llava.features import FeatureSettings
from marathon_pipeline.sources.settings import DownloadSettings
from marathon_pipeline.stages.calibrate import Calibrate
from marathon_pipeline.stages.caption_clips import CaptionClips, CaptionSettings
from marathon_pipeline.stages.caption_events import CaptionEvents, EventSettings
from marathon_pipeline.stages.download import Download, PartSettings
from marathon_pipeline.stages.extract_features import ExtractFeatures
from marathon_pipeline.stages.judging import JudgeSettings
from marathon_pipeline.stages.qa import WriteQA
from marathon_pipeline.stages.segment import Segment, SegmentSettings
from marathon_pipeline.stages.stage import Stage
from marathon_pipeline.stages.summarize import Summarize
from marathon_pipeline.stages.verify import Verify
from marathon_pipeline.taxonomy import Taxonomy

ANNOTATED = ("caption_clips", "caption_events", "summarize", "qa")
STAGE_NAMES = (
    "download",
    "segment",
    "caption_clips",
    "caption_events",
    "summarize",
    "qa",
    "verify",
    "calibrate",
    "extract_features",
)
OPTIONAL = ("calibrate", "extract_features")  # a job has them where it says so


class StageSettings(BaseModel):
    """What decides the content of a dataset, besides the templates."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    download: DownloadSettings = DownloadSettings()
    parts: PartSettings = PartSettings()
    segment: SegmentSettings = SegmentSettings()
    captions: CaptionSettings = CaptionSettings()
    events: EventSettings = EventSettings()
    judge: JudgeSettings = JudgeSettings()
    features: FeatureSettings | None = None  # none: training decodes the proxies, and runs the tower, in every epoch


def build_stages(
    settings: StageSettings,
    annotators: Mapping[str, Annotator],
    taxonomy: Taxonomy,
    tasks: tuple[str, ...],
    storage: Storage,
    judge: JudgingAnnotator | None = None,
) -> tuple[Stage, ...]:
    """`annotators`: who writes in each stage of `ANNOTATED`. Without a `judge` there is no `calibrate`."""
    features = settings.features
    captions = taxonomy.captions
    return (
        Download(settings.download, settings.parts, settings.segment.decode, storage),
        Segment(settings.segment, storage),
        CaptionClips(annotators["caption_clips"], captions["clip"], settings.captions, storage),
        CaptionEvents(annotators["caption_events"], (captions["event_split"], captions["event"]), settings.events),
        Summarize(annotators["summarize"], captions["global"]),
        WriteQA(annotators["qa"], taxonomy, tasks),
        Verify(taxonomy, tasks, judge, settings.judge),
        *((Calibrate(judge, taxonomy, tasks, settings.judge),) if judge else ()),
        *((ExtractFeatures(features, storage),) if features else ()),
    )
