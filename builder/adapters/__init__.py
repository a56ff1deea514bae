"""The only I/O: implementations of the ports of ``builder.flow``, strangers to each other."""
