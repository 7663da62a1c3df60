"""What data.doctor looks at: sizes, copies of pictures, and the advice that follows."""
