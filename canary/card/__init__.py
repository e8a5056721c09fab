"""The decision card: a release's spec, read strictly, and what is wrong with one."""
