"""Pure: from a build request to its Job, and the decisions about a Job that is there."""
