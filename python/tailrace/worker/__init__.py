"""The worker: runs commands for a master. Its path imports only trio, attrs, the standard library and `_core`."""
