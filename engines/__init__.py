"""The contract between export and runtime, verified artifacts, and one executor per backend."""
