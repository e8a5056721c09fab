"""The pure core: no I/O, no clock, no chance; time and draws are arguments."""
