"""The server role: keeps what edges say, and answers for everybody."""
