"""Laws of the soft label, the weighted targets that they give, and the quadrature that they need."""
