"""What tools.doctor examines: files, copies and sizes, and the advice that follows."""
