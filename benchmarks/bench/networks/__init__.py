"""Every network against its baselines and what the machine can do: `dubstream bench`."""
