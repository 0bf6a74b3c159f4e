"""What is run? A suite file, read and checked."""
