"""A telephone on the command line: the caller's side of a call, in a process of its own."""
