"""How many sockets hold which address: exact, whatever becomes of them."""
