"""What can be typed in a configuration, as people read it: what `distributed-dd kinds` prints."""
