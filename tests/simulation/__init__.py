"""The whole of Tailrace's protocol in one process and one thread: both ends are the real ones, and everything around
them is made up, from a seed: the network, the clock, the disk, the order of events, crashes and children.

`./dev simulate --seeds N [--from SEED]` runs it. A seed that breaks an invariant does it again whenever it is run.
"""
