"""A re-ranking mixer for search: asks several engines at once, merges, re-ranks, and shows its reasons."""
