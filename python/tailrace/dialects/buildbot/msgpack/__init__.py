"""`msgpack_experimental_v7`: maps of msgpack as WebSocket messages."""
