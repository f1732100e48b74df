"""Electronic structure: what electrons do in given classical fields."""
