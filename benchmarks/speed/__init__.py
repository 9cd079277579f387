"""Speed: this package beside its peers, every contender in a process of its own."""
