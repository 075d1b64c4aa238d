"""The program in a backup's Job: it carries what the engine's tool has written into the repository."""
