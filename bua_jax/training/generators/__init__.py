"""How the generators of Table 2 are trained."""
