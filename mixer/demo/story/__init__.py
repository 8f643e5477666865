"""The life of a model, told on the demo: served, learned from, tried, promoted, and broken ones stopped."""
