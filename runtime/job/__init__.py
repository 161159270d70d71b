"""The dub job: prepare, synthesise segment by segment, assemble; resumable at each of them."""
