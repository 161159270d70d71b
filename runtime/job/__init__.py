"""The dub job: prepare, synthesise, assemble; resumable segment by segment."""
