"""What the discovery plugins have in common: signed requests, tables in memory, loops, sources.

Why in the kernel: four plugins need each of these pieces, and no plugin may import another. Nothing
here is a part by itself; a plugin puts the pieces together.
"""
