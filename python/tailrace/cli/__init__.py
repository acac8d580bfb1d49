"""The command line: parse, ask the master, show, exit code. Nobody imports this package.

Each command lives in its own module, which is imported when it is called for; `app` holds the map of them.

- `app`: the tree of commands, and the one place where exceptions become a line and an exit code
- `failure`, `settings`: how a command ends, and what every command is told
- `api`, `records`: the master's HTTP API on its Unix socket, and the records that it streams
- `streams`, `output`, `terminal`, `table`, `progress`: what we do with our own standard streams
- `show`, `ending`: the views of a run's log and of its end
- `run`, `logs`, `runs`, `files`, `master`, `worker`, `demo`: the commands
"""
