"""What an output frame costs on paper: `dubstream bench cost`."""
