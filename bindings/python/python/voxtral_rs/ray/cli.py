"""The command `voxtral-archive`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from voxtral_rs.ray import ArchiveError, Job, run

WRONG, INTERRUPTED = 1, 130

ABOUT = """Transcribes an archive: each recording becomes one object, named after the recording, its version, the model
and the options. What is there already is not done again, so the same command goes on where an earlier run ended."""

CODES = """exit codes: 0 all is transcribed; 4 all is done, but recordings are damaged or could not be transcribed;
1 something could not be done now: run it again; 2 wrong usage; 130 Ctrl-C"""


def arguments() -> argparse.ArgumentParser:
    """The flags, which are named as those of the program `voxtral` where they mean the same."""
    parser = argparse.ArgumentParser(prog="voxtral-archive", description=ABOUT, epilog=CODES)
    parser.add_argument(
        "manifest",
        help="a folder or bucket; or a file ending with .parquet, .csv or .jsonl with a column `key`, the path or URI "
        "of a recording, and perhaps `etag`, its version",
    )
    parser.add_argument("out", help="the folder or bucket that transcripts go to: a path, s3://…, gs://… or az://…")
    parser.add_argument(
        "-d", "--model", required=True, help="the model's folder on every worker, or digits, the demo model"
    )
    parser.add_argument("--delay", type=int, metavar="MS", dest="delay_ms", help="milliseconds until a word is written")
    parser.add_argument(
        "--endpoint", type=int, metavar="MS", dest="endpoint_ms", help="begin a segment after such a pause"
    )
    parser.add_argument("--channel", type=int, metavar="N", help="one channel, counted from 1; else the mix of all")
    parser.add_argument("--tokens", action="store_true", help="list all tokens, too")
    parser.add_argument("--device", choices=["cuda", "cpu"], help="what computes; else GPUs, if the cluster has any")
    parser.add_argument(
        "--workers", type=_positive, metavar="N", help="the most GPUs; else all that the cluster has now"
    )
    parser.add_argument(
        "--jobs", type=_positive, default=Job.jobs, metavar="N", help="recordings at a time on each (%(default)s)"
    )
    parser.add_argument(
        "--deadline", type=_positive, default=Job.deadline_s, metavar="S", dest="deadline_s",
        help="seconds that a recording may take (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--memory", type=_positive, default=Job.memory_mb, metavar="MB", dest="memory_mb",
        help="10⁶ bytes of main memory that a recording may take (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--shards",
        action="store_true",
        help="Parquet files with many transcripts each, for millions of short recordings",
    )
    parser.add_argument("--retry", choices=["failed"], help="do again what an earlier run could not transcribe")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; its exit code."""
    flags = vars(arguments().parse_args(argv))
    try:
        progress = run(Job(retry_failed=flags.pop("retry") == "failed", **flags))
    except ImportError as error:
        # fsspec says itself what is missing for a bucket.
        what = ": pip install 'voxtral-rs[ray]'" if error.name in ("ray", "pyarrow", "fsspec") else ""
        print(f"voxtral-archive: {error}{what}", file=sys.stderr)
        return WRONG
    except ArchiveError as error:
        print(f"voxtral-archive: {error}", file=sys.stderr)
        return WRONG
    except KeyboardInterrupt:
        print("voxtral-archive: interrupted: what is done is done, and the same command goes on", file=sys.stderr)
        return INTERRUPTED
    print(progress.summary())
    return progress.exit_code()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


if __name__ == "__main__":
    sys.exit(main())
