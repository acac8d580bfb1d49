"""Perspective Broker, `pb://`: what Buildbot's masters and workers speak by default, since 2003."""
