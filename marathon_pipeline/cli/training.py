"""`marathon train`: from a training job to a model."""

from threading import Event

from marathon_pipeline.cli.running import JobArgument, SetOption
from marathon_pipeline.cli.shared import err, out, stopped


def train(job: JobArgument, set: SetOption = None) -> None:
    """Train Hour-LLaVA on releases, stage after stage; go on where it was stopped."""
    from marathon_pipeline.hour_llava.training.folder import model_of
    from marathon_pipeline.hour_llava.training.launch import prepare, train_stages
    from marathon_pipeline.hour_llava.training.progress import TrainProgress
    from marathon_pipeline.hour_llava.training.settings import load_train_job
    from marathon_pipeline.pipeline.cluster import drained_on_signals, ray_started
    from marathon_pipeline.pipeline.settings import RunSettings

    config = load_train_job(job, set or [])
    if left := prepare(config):
        cluster = RunSettings(workers=config.run.workers * config.run.cpus, ray_address=config.run.ray_address)
        stop = Event()
        with drained_on_signals(stop), ray_started(cluster), TrainProgress(err) as progress:
            done = train_stages(config.absolute(), left, stop.is_set, progress.told)
        if not done:
            stopped("stopped, and kept in a checkpoint; run the same command again to go on")
    else:
        out.print("nothing to do: every stage has its model", markup=False)
    for stage in config.stages:
        out.print(f"{stage.name}  {model_of(config, stage)}", markup=False)
