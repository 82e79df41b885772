"""`runlane runs submit`: thousands of lines become runs, each exactly once."""
