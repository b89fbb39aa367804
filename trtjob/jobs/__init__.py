"""What a job is, where it stands, how it travels, and where its bytes live."""
