"""What `make demo` shows Mixer on: the documentation of the running interpreter's standard library."""
