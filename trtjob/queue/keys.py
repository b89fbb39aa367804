"""Every key in Redis that trtjob writes: its type, who owns it, and how long it lives. Names are made here alone.

    key                            type     owner           what                                 life
    trtjob:jobs                    zset     JobStore        job id -> submitted at, seconds      with the job
    trtjob:state:<state>           set      JobStore        ids of the jobs in a state           with the job
    trtjob:state:degraded          set      JobStore        those that wait for what fails       until it works
    trtjob:queue:<queue>:<state>   set      JobStore        the same for each queue              with the job
    trtjob:queue:<queue>:ended     zset     JobStore        job id -> ended at, server's clock   with the job
    trtjob:job:<job>               hash     JobStore        what `views.job_view` reads          keep_jobs after its end
    trtjob:job:<job>:done          bitmap   Leases          a bit for each committed shard       with the job
    trtjob:job:<job>:holders       hash     Leases          unit -> "<token>.<call>|<owner>"     until given up
    trtjob:job:<job>:attempts      hash     Leases          unit -> how often it was claimed     until the unit is done
    trtjob:job:<job>:kills         hash     Leases          unit -> how often it was killed      until the unit is done
    trtjob:job:<job>:blame         hash     Leases          unit -> what ended its worker        until the unit is done
    trtjob:job:<job>:crashes       hash     Leases          unit -> the nodes where              until the unit is done
    trtjob:job:<job>:live          hash     Leases          unit -> "done,failed,kind=count,..." until the unit is done
    trtjob:job:<job>:kinds         hash     Leases          kind of failure -> images            with the job
    trtjob:job:<job>:aside         hash     Exclusions      worker -> why it stands aside        until the job ends
    trtjob:job:<job>:events        stream   events          what happened, the last MOST_EVENTS  with the job
    trtjob:job:<job>:log           stream   JobLog          what was logged, the last MOST_LINES with the job
    trtjob:job:<job>:calls         list     events          the last MOST_CALLS calls            with the job
    trtjob:lease:<job>:<unit>      string   Leases          the holder                           lease_s
    trtjob:fence                   integer  Leases          the last token                       for ever
    trtjob:workers                 set      WorkerRegistry  names                                until one is silent
    trtjob:daemons                 set      WorkerRegistry  names                                until one is silent
    trtjob:worker:<worker>         hash     WorkerRegistry  its report, and unit:<job>:<unit>    WORKER_TTL_S
    trtjob:daemon:<daemon>         hash     WorkerRegistry  its report                           WORKER_TTL_S
    trtjob:notify[:<queue>]        set      notifications   delivery ids that wait               until told
    trtjob:notice:<delivery>       hash     notifications   what is told, and where              two days
    trtjob:conversion:<id>         hash     Conversion      how it stands                        a day
    trtjob:conversion:<id>:wanted  string   Conversion      somebody waits for it                WANTED_S
    trtjob:taken:<taker>           string   WorkQueue       what it took last                    five minutes
    trtjob:lock:<name>             string   Context         one process builds a plan            LOCK_LEASE_S
    trtjob:sweep:<queue>           string   Sweep           one daemon of the queue sweeps       LOCK_S
    trtjob:forget:<queue>          string   Sweep           one daemon of the queue forgets      LOCK_S
    trtjob:starts                  integer  Supervisor      when a process was last started      for ever

RQ's keys are in `trtjob.queue.rq_internals`.
"""

from trtjob.jobs.states import JobState

_PREFIX = "trtjob:"

JOBS = _PREFIX + "jobs"
STATE = _PREFIX + "state:"
DEGRADED = STATE + "degraded"
QUEUE = _PREFIX + "queue:"
ENDED = ":ended"
JOB = _PREFIX + "job:"
LEASE = _PREFIX + "lease:"
FENCE = _PREFIX + "fence"
WORKERS, WORKER = _PREFIX + "workers", _PREFIX + "worker:"
DAEMONS = _PREFIX + "daemons"
NOTICES, NOTICE = _PREFIX + "notify", _PREFIX + "notice:"
STARTS = _PREFIX + "starts"

# A job's keys beside its hash, all of which go with it.
PARTS = (
    *("done", "holders", "attempts", "blame", "kills", "crashes", "live", "kinds"),
    *("aside", "events", "log", "calls"),
)
# The types of the keys that are not one job's.
TYPES = {JOBS: "zset", DEGRADED: "set", NOTICES: "set", WORKERS: "set", DAEMONS: "set"}
TYPES |= {STATE + state: "set" for state in JobState}


def types_of(queue: str) -> dict[str, str]:
    """Return the types of the keys of all jobs, and of those of a queue."""
    of_queue = {queue_state_key(name, state): "set" for name in (queue, "") for state in JobState}
    return TYPES | of_queue | {ended_key(name): "zset" for name in (queue, "")}


def job_key(job_id: str) -> str:
    return JOB + job_id


def part_key(job_id: str, part: str) -> str:
    """Return one of a job's PARTS."""
    return f"{JOB}{job_id}:{part}"


def done_key(job_id: str) -> str:
    return part_key(job_id, "done")


def aside_key(job_id: str) -> str:
    return part_key(job_id, "aside")


def log_key(job_id: str) -> str:
    return part_key(job_id, "log")


def events_key(job_id: str) -> str:
    return part_key(job_id, "events")


def lease_key(job_id: str, unit: str) -> str:
    return f"{LEASE}{job_id}:{unit}"


def state_key(state: str) -> str:
    return STATE + state


def queue_state_key(queue: str, state: str) -> str:
    return f"{QUEUE}{queue}:{state}"


def ended_key(queue: str) -> str:
    return f"{QUEUE}{queue}{ENDED}"


def worker_key(name: str) -> str:
    return WORKER + name


def daemon_key(name: str) -> str:
    return f"{_PREFIX}daemon:{name}"


def notices_key(queue: str) -> str:
    """Return the set of the notices that wait, of a queue's jobs; an empty name: of those that have no queue."""
    return f"{NOTICES}:{queue}" if queue else NOTICES


def conversion_key(request_id: str) -> str:
    return f"{_PREFIX}conversion:{request_id}"


def wanted_key(request_id: str) -> str:
    return f"{conversion_key(request_id)}:wanted"


def taken_key(taker: str) -> str:
    return f"{_PREFIX}taken:{taker}"


def lock_key(name: str) -> str:
    return f"{_PREFIX}lock:{name}"


def sweep_lock_key(queue: str) -> str:
    return f"{_PREFIX}sweep:{queue}"


def forget_lock_key(queue: str) -> str:
    return f"{_PREFIX}forget:{queue}"
