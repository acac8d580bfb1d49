"""Files and trees on their way to and from a disk: whole or not at all.

* `atomic`: one file, which appears when it is complete
* `blocks`: one file, read ahead and hashed for who sends it
* `ahead`: the disk at work while more is written
* `behind`: one thread's work, a little behind who gives it
* `tree`: a directory as a tar stream, made on the fly
* `unpack`: a tar stream as a directory, confined to it, which appears when the stream is complete and harmless
"""

from tailrace.files.atomic import AtomicFile
from tailrace.files.blocks import FileBlocks
from tailrace.files.tree import pack
from tailrace.files.unpack import Unpacker

__all__ = ["AtomicFile", "FileBlocks", "Unpacker", "pack"]
