"""Images, videos and streams to detect on, and what is written about them."""
