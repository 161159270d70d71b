"""Where a job computes: the backends, and the stages of the second pass on each of them."""
