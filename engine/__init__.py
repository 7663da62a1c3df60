"""What the commands do: one room for each activity."""
