"""The worker: runs commands for a master. Its path imports only trio, attrs, the standard library and `_core`."""

from .config import Manners, WorkerConfig, create_worker, read_config
from .daemon import WorkerState, run_worker, serve_worker

__all__ = ["Manners", "WorkerConfig", "WorkerState", "create_worker", "read_config", "run_worker", "serve_worker"]
