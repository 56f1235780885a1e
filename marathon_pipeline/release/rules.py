"""What decides a release, besides what the dataset holds."""

from dataclasses import dataclass

from marathon_pipeline.gates import Gates
from marathon_pipeline.licences import UNRESTRICTED, Licences
from marathon_pipeline.records import Split
from marathon_pipeline.release.settings import ReleaseSettings
from marathon_pipeline.taxonomy import Taxonomy


@dataclass(frozen=True)
class ReleaseRules:
    """`gates`: as far as they count. `frozen`: the splits whose QA stays as it was first written, as the card says."""

    settings: ReleaseSettings
    taxonomy: Taxonomy
    gates: Gates
    licences: Licences = UNRESTRICTED
    frozen: tuple[Split, ...] = ()
