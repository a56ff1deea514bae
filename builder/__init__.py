"""knative-lambda-builder: CloudEvents in, exactly one right Kaniko Job out."""

__version__ = "0.1.0"
