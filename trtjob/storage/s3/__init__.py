"""A prefix of a bucket in any S3-compatible store."""
