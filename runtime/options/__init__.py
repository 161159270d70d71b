"""What a dub can be asked for, checked before any work: what jobs and command line agree on."""
