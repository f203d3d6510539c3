"""Laws of the soft label, the weighted targets that they make, and the quadrature behind them."""
