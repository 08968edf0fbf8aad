"""What a decoding process does: reads requests from its standard input, and writes batches to its standard output."""

from __future__ import annotations

import os
import pickle
import signal
import sys

from vizapp.media.loading import decode_batch


def serve() -> None:
    """Answer requests until the input ends, which it does when the process that asks has gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is for the process that asks
    asked, answers = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a decoder prints must not get between the answers
    while True:
        try:
            number, first, refs, view = pickle.load(asked)
            pickle.dump(decode_batch(number, first, refs, view), answers, protocol=pickle.HIGHEST_PROTOCOL)
            answers.flush()
        except (EOFError, BrokenPipeError):
            return
