"""The decoding process: reads requests from standard input and writes batches to standard output."""

from __future__ import annotations

import os
import pickle
import signal
import sys

from vizapp.media.loading import decode_batch


def serve() -> None:
    """Answer requests until the input ends, which happens when the parent process has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process handles Ctrl+C
    asked, answers = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # output of decoders must not mix with the answers
    while True:
        try:
            number, first, refs, view = pickle.load(asked)
            pickle.dump(decode_batch(number, first, refs, view), answers, protocol=pickle.HIGHEST_PROTOCOL)
            answers.flush()
        except (EOFError, BrokenPipeError):
            return
