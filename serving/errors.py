"""What can go wrong with engines. Each message is one line: what, where, the mend.

ServingError
├── InstallError           the engines' own environment cannot be made or is not there
├── ModelError             a model folder is missing or unusable, or the made models failed their own check
└── EngineError            a child process does not start, does not answer, or does not stay
"""


class ServingError(Exception):
    """Whatever the serving room tells its user, in one line."""


class InstallError(ServingError):
    """The engines' environment cannot be made, or is not there."""


class ModelError(ServingError):
    """A model folder is missing or unusable, or the made models failed their own check."""


class EngineError(ServingError):
    """A child process does not start, does not answer, or does not stay."""
