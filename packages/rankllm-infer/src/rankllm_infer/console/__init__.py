"""What people read: messages, tables and the summary of a run."""
