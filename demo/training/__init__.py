"""How the demo's nets were trained; nothing here is needed to use them."""
