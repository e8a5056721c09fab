"""The local stack: store, engines, gateway and controller as one supervised family."""
