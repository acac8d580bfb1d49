"""`tailrace demo`, in reading order.

- `demo`: the command
- `farm`: the daemons
- `script`: what happens, and what is checked of it
- `project`: what is built
- `screen`, `lines`: how it looks
"""
