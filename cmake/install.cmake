# Install rules come with the host example.
