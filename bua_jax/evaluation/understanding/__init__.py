"""What texts say about people, held against their logs."""
