"""What a run leaves on disk, without torch: one writer and one reader for each file."""
