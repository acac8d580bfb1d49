"""The wires of Buildbot: streams made of calls, its names for things, and below it one package for each wire."""
