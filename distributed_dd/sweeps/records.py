"""What is kept of each trial of a study."""

from dataclasses import replace

from distributed_dd.backends.ray.tune_events import Reported
from distributed_dd.data.material import Material
from distributed_dd.search.study import TrialRecord
from distributed_dd.sweeps.trial import TrialJob, scores, trial_run


def record_of(job: TrialJob, number: int, one: Reported, material: Material) -> TrialRecord:
    """What is kept of a trial."""
    facts = one.facts
    record = TrialRecord(
        number=number,
        settings=job.space.settings(one.point, job.base),
        run="",
        status="failed" if one.error else "stopped",
        message=one.error,
    )
    if one.error:
        return record
    if facts is not None and facts["status"] != "scored":
        return replace(
            record,
            run=facts["run"],
            status=facts["status"],
            outer_step=facts["reached"],
            message=facts["message"],
        )
    # The run folder knows: a trial that was restored may be stopped before it tells its score again.
    run = trial_run(job, one.point, material)
    known = {step: accuracy for step, accuracy in scores(run).items() if step in job.rungs}
    if not known:
        return record  # out of time before the first score
    step = max(known)
    return replace(
        record,
        run=run.name,
        status="finished" if step == job.rungs[-1] else "stopped",
        outer_step=step,
        accuracy=known[step],
        num_networks=job.networks[job.rungs.index(step)],
        span=run.method.on_axis(step),
    )
