"""The study of dynamic days: how they are lived through, and its table and figures."""
