"""A robot, a client, a line between them that mistreats what passes, and who checks the books."""
