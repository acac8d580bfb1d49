"""The slow twins: so simple that they are the specification; and the tests that compare with them."""
