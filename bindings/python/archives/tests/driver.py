"""The command `voxtral-archive` with what only tests have: fields of the job, as JSON in VOXTRAL_TEST_JOB."""

from __future__ import annotations

import json
import os
import resource
import sys
from dataclasses import replace

from voxtral_rs.ray import Job, cli, run
from voxtral_rs.ray.progress import Progress


def with_more(job: Job) -> Progress:
    return run(replace(job, **json.loads(os.environ["VOXTRAL_TEST_JOB"])))


setattr(cli, "run", with_more)
code = cli.main()
print("peak MB", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, file=sys.stderr)
sys.exit(code)
