"""The use cases: from an event at the door to its outcome, over narrow ports."""
