"""`python -m serving.simulated`: one simulated engine on a loopback port."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Sequence

import uvicorn

from serving.simulated.app import SERVED, create_app
from serving.simulated.behaviour import Behaviour, BehaviourError
from serving.simulated.engine import Engine

_GRACE_S = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; the first line on stdout says where."""
    asked = _parser().parse_args(arguments)
    try:
        behaviour = Behaviour().changed({name: getattr(asked, name) for name in _BEHAVIOUR})
        listener = socket.create_server((asked.host, asked.port), backlog=1024)
    except BehaviourError as error:
        return _refuse(str(error), 2)
    except OSError as error:
        return _refuse(f"cannot listen on {asked.host}:{asked.port}: {error.strerror}; pass another --port", 1)
    host, port = listener.getsockname()[:2]
    sys.stdout.write(f"simulated engine {asked.model} on http://{host}:{port}\n")
    sys.stdout.flush()
    engine = Engine(
        asked.model,
        behaviour,
        seed=asked.seed,
        slots=asked.max_num_seqs,
        longest=asked.max_model_len,
        die=lambda: os._exit(1),
        adapters=asked.adapters,
        serves=asked.serves,
        blocks=asked.cache_blocks,
    )
    config = uvicorn.Config(
        create_app(engine),
        lifespan="off",
        access_log=False,
        log_level="critical",
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    uvicorn.Server(config).run(sockets=[listener])
    return 0


def _refuse(message: str, code: int) -> int:
    sys.stderr.write(f"error: {message}\n")
    return code


_BEHAVIOUR = {
    "ttft_ms": (float, "time to the first token"),
    "tpot_ms": (float, "time between tokens"),
    "error_rate": (float, "share of requests answered with 500"),
    "midstream_error_rate": (float, "share of streams that end in an error event"),
    "cut_rate": (float, "share of answers whose connection is cut"),
    "accuracy": (float, "share of right words and of rank-1 prompt tokens"),
    "die_after": (int, "requests the engine lives through; 0: all"),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serving.simulated", description=sys.modules["serving.simulated"].__doc__
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True, help="0 takes a free one")
    parser.add_argument("--model", required=True, help="the served model's name")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-num-seqs", type=int, default=256, help="requests that run side by side; others wait")
    parser.add_argument("--max-model-len", type=int, default=8192, help="context length in tokens")
    parser.add_argument("--adapters", nargs="+", default=(), help="names of LoRA adapters that it serves too")
    parser.add_argument("--serves", nargs="+", choices=SERVED, default=("generate",), help="what it answers")
    parser.add_argument("--cache-blocks", type=int, default=100_000, help="blocks of 16 tokens in the prefix cache")
    default = Behaviour()
    for name, (kind, text) in _BEHAVIOUR.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=getattr(default, name), help=text)
    return parser


if __name__ == "__main__":
    sys.exit(main())
