"""How long the way back takes, from the breach to the last worker's acknowledgement."""
