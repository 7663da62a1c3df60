"""What tools.doctor looks at: sizes, copies of images, and the advice that follows."""
