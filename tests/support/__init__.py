"""What the tests share: the stores, the two sides of a saver, and checkpoints to put."""
