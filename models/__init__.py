"""Makes and measures the models that Mixer ranks with, from what a running Mixer serves."""
