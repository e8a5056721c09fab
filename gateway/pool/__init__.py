"""The engines of an arm: connections, replicas, and which of them is asked."""
