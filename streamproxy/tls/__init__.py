"""Identity: the authority that mints leaf certificates, the contexts of TLS, and its layer on a connection."""
